// The theme's copy buttons stand in landmarks without a name: they are none. Code that scrolls can be reached by keyboard on every device.
const mend = () => {
  document.querySelectorAll("nav.md-code__nav:not([role])").forEach((nav) => nav.setAttribute("role", "none"));
  document.querySelectorAll("pre > code:not([tabindex])").forEach((code) => {
    if (code.scrollWidth > code.clientWidth || code.scrollHeight > code.clientHeight) code.setAttribute("tabindex", "0");
  });
};
new MutationObserver(mend).observe(document.body, { childList: true, subtree: true, attributeFilter: ["tabindex"] });
addEventListener("resize", mend);
mend();
