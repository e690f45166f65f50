// Draws every chart into the element of its name, from the top; folded tables open for print.
const drawn = JSON.parse(document.getElementById("drawn").textContent);
const options = {
  renderer: "svg",
  mode: "vega-lite",
  // The menu saves images; the entries that lead to other sites are left out.
  actions: { export: true, source: false, compiled: false, editor: false },
};
async function drawAll() {
  for (const [name, specification] of Object.entries(drawn)) {
    const element = document.getElementById(`chart-${name}`);
    try {
      await vegaEmbed(element, specification, options);
    } catch (error) {
      element.textContent = `This chart could not be drawn: ${error}`;
      console.error(name, error);
    }
    // Between two charts the browser paints and scrolls: the first is there before the last.
    await new Promise((done) => setTimeout(done));
  }
}
drawAll();
addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
});
