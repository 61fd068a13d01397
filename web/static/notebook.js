// Boxes that scroll are reached by the keyboard; on a phone the contents are folded.
"use strict";
{
  const boxes = document.querySelectorAll(".scroll, .notebook pre");
  const sizes = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const scrolls = target.scrollWidth > target.clientWidth + 1;
      if (scrolls) target.setAttribute("tabindex", "0");
      else target.removeAttribute("tabindex");
    }
  });
  boxes.forEach((box) => sizes.observe(box));

  const contents = document.querySelector(".contents details");
  const isWide = matchMedia("(min-width: 1100px)");
  const follow = () => (contents.open = isWide.matches);
  if (contents) { // a page without headings has none
    follow();
    isWide.addEventListener("change", follow);
  }

  // a link to what is folded, or inside it, opens it
  const unfold = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let node = target; node; node = node.parentElement) if (node.matches("details")) node.open = true;
  };
  addEventListener("hashchange", unfold);
  unfold();
}
