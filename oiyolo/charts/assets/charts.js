// Draw each chart in its figure, in the colours of the page; without this, its picture is shown.
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const views = [];

  function colour() {
    const style = getComputedStyle(document.body);
    const [ink, line] = [style.getPropertyValue("--ink").trim(), style.getPropertyValue("--line").trim()];
    const models = views.flatMap((manager) => [...manager]).map((view) => view.model);
    for (const plot of models.filter((model) => model.type === "Figure")) {
      const axes = [...plot.below, ...plot.left].filter((part) => part.axis_label_text_color !== undefined);
      for (const axis of axes) {
        Object.assign(axis, { axis_label_text_color: ink, major_label_text_color: ink, axis_line_color: line,
          major_tick_line_color: line, minor_tick_line_color: null });
      }
      for (const grid of plot.center.filter((part) => part.grid_line_color !== undefined)) grid.grid_line_color = line;
      for (const legend of plot.above.filter((part) => part.label_text_color !== undefined)) legend.label_text_color = ink;
    }
  }

  async function draw() {
    for (const figure of document.querySelectorAll("figure[data-chart]")) {
      const target = figure.querySelector(".chart");
      target.hidden = false;
      figure.classList.add("live");
      views.push(await Bokeh.embed.embed_item(charts[figure.dataset.chart], target.id));
    }
    colour();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", colour);
  }

  draw().catch((error) => {
    console.error(error);
    for (const figure of document.querySelectorAll("figure.live")) {
      figure.classList.remove("live");
      figure.querySelector(".chart").hidden = true;
    }
  });
})();
