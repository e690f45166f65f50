// Draws every chart into the element of its name; folded tables open for print.
const drawn = JSON.parse(document.getElementById("drawn").textContent);
const options = {
  renderer: "svg",
  mode: "vega-lite",
  // The menu saves images; the entries that lead to other sites are left out.
  actions: { export: true, source: false, compiled: false, editor: false },
};
for (const [name, specification] of Object.entries(drawn)) {
  const element = document.getElementById(`chart-${name}`);
  vegaEmbed(element, specification, options).catch((error) => {
    element.textContent = `This chart could not be drawn: ${error}`;
    console.error(name, error);
  });
}
addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
});
