"use strict";
// Draws the figures with the style sheet's colours, and again when those change: light, dark, paper.
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const config = { displayModeBar: false, responsive: true };
  const root = document.documentElement;
  const paperWidth = 660; // CSS pixels that fit between the margins of A4 and of US letter

  const colored = (value, style) => {
    if (typeof value === "string") {
      return value.replace(/var\((--[a-z-]+)\)/g, (_, name) => style.getPropertyValue(name).trim());
    }
    if (Array.isArray(value)) return value.map((item) => colored(item, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, colored(item, style)]));
  };

  const draw = () => {
    const style = getComputedStyle(root);
    const width = root.classList.contains("paper") ? { width: paperWidth } : {};
    for (const [id, figure] of Object.entries(figures)) {
      const { data, layout } = colored(figure, style);
      Plotly.react(id, data, { ...layout, ...width }, config);
    }
  };

  const print = (on) => () => {
    root.classList.toggle("paper", on);
    draw();
  };

  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  addEventListener("beforeprint", print(true));
  addEventListener("afterprint", print(false));
})();
