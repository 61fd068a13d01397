// When a prediction is taken the keyboard goes on: the next code cell gets the focus, so that the
// next Shift+Enter runs it. Where the reader has gone elsewhere meanwhile, nothing moves; the page
// does not scroll, since the text between is still to be read.
export default {
  render({ model, el }) {
    function goOn() {
      const cell = el.closest(".jp-Cell");
      const here = document.activeElement;
      if (!cell || (here !== document.body && !cell.contains(here))) return;
      let next = cell.nextElementSibling;
      while (next && !next.matches(".jp-CodeCell")) next = next.nextElementSibling;
      (next ?? cell).focus({ preventScroll: true });
    }
    model.on("change:taken", goOn);
    return () => model.off("change:taken", goOn);
  },
};
