// Redraws an explorer's picture in place: the plot is the one that the front end's own plotly
// renderer drew, so that no second copy of plotly is loaded. Where there is none (VS Code, Colab),
// `absent` asks the kernel to show each picture as an output instead.
const PATIENCE = 4000; // ms for the first plot to appear

export default {
  render({ model, el }) {
    const since = performance.now();
    let timer = 0;

    function draw() {
      clearTimeout(timer);
      const { data, layout, config } = model.get("figure");
      if (!data || model.get("absent")) return;
      const plot = el.closest(".efflab-explorer")?.querySelector(".js-plotly-plot");
      if (plot && window.Plotly) {
        window.Plotly.react(plot, structuredClone(data), structuredClone(layout), config);
      } else if (performance.now() - since < PATIENCE) {
        timer = setTimeout(draw, 50);
      } else {
        model.set("absent", true);
        model.save_changes();
      }
    }

    model.on("change:figure", draw);
    draw(); // after a reload the plot above shows the first picture, this one the last
    return () => {
      clearTimeout(timer);
      model.off("change:figure", draw);
    };
  },
};
