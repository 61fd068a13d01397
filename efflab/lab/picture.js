// Redraws an explorer's picture in place: the plot is the one that the front end's own plotly
// renderer drew, so that no second copy of plotly is loaded. Where there is none (VS Code, Colab),
// `absent` asks the kernel to show each picture as an output instead.
// Milliseconds from each move for a plot to be there: the page may be drawing it anew.
const PATIENCE = 4000;

export default {
  render({ model, el }) {
    let since = 0;
    let timer = 0;

    function follow() {
      since = performance.now();
      draw();
    }

    function draw() {
      clearTimeout(timer);
      const { data, layout, config } = model.get("figure");
      if (!data || model.get("absent")) return;
      const plot = el.closest(".efflab-explorer")?.querySelector(".js-plotly-plot");
      if (plot && window.Plotly) {
        const copies = [structuredClone(data), structuredClone(layout)];
        window.Plotly.react(plot, ...copies, config).then(() => drawn(plot), giveUp);
      } else if (performance.now() - since < PATIENCE) {
        timer = setTimeout(draw, 50);
      } else {
        giveUp();
      }
    }

    function drawn(plot) {
      if (!el.isConnected) return;
      if (!plot.isConnected) return draw(); // the page has put another in its place
      model.set("drawn", model.get("number"));
      model.save_changes();
    }

    function giveUp() {
      model.set("absent", true);
      model.save_changes();
    }

    model.on("change:number", follow);
    follow(); // after a reload the plot above shows the first picture, this one the last
    return () => {
      clearTimeout(timer);
      model.off("change:number", follow);
    };
  },
};
