// Draws each chart into the element of its name, always the one next that is nearest to the window.
// Before a print all are drawn, and folded tables open.
const drawn = JSON.parse(document.getElementById("drawn").textContent);
const options = {
  renderer: "svg",
  mode: "vega-lite",
  // The menu saves images; the entries that lead to other sites are left out.
  actions: { export: true, source: false, compiled: false, editor: false },
};
const waiting = new Map();
for (const element of document.querySelectorAll(".chart")) {
  const specification = drawn[element.id.replace("chart-", "")];
  waiting.set(element, specification);
  // The page keeps its length, so that nothing jumps away under whoever reads.
  element.style.minHeight = `${tall(specification)}px`;
}
function tall(specification) {
  const parts = specification.vconcat;
  return parts ? parts.reduce((sum, part) => sum + tall(part), 0) : specification.height + 70;
}
// The libraries lie in the page as a text: to run them takes longer than to show all but the charts.
function load() {
  if (window.vegaEmbed) return;
  const script = document.createElement("script");
  script.textContent = `(() => {${document.getElementById("libraries").textContent}\n})();`;
  document.head.append(script);
}
async function draw(element) {
  const specification = waiting.get(element);
  if (!specification) return;
  waiting.delete(element);
  try {
    load();
    await vegaEmbed(element, specification, options);
    const says = `Save as an image: ${element.getAttribute("aria-label")}`;
    element.querySelector("summary")?.setAttribute("aria-label", says); // it shows three dots
  } catch (error) {
    element.textContent = `This chart could not be drawn: ${error}`;
    console.error(element.id, error);
  }
  element.style.minHeight = "";
}
function distance(element) {
  const { top, bottom } = element.getBoundingClientRect();
  return Math.max(0, top - innerHeight, -bottom);
}
// A page in another tab has no frames: then a moment is enough.
const painted = () => new Promise((done) => {
  requestAnimationFrame(() => setTimeout(done));
  setTimeout(done, 200);
});
async function drawAll() {
  await painted(); // until then a page that is opened at a section stands at its top
  while (waiting.size) {
    // The browser paints and scrolls meanwhile: text and tables are there before the first chart.
    await new Promise((done) => setTimeout(done, 20));
    const [nearest] = [...waiting.keys()].sort((one, other) => distance(one) - distance(other));
    await draw(nearest);
  }
}
addEventListener("load", drawAll);
addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
  for (const element of waiting.keys()) draw(element);
});
