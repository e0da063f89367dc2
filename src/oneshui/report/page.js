// Draws the identity explorer: Vega-Lite does the work, the specification and the numbers are in the page.
(() => {
  "use strict";
  const content = JSON.parse(document.getElementById("explorer-content").textContent);
  const values = content.rows.map((row) => Object.fromEntries(content.columns.map((name, i) => [name, row[i]])));
  const night = matchMedia("(prefers-color-scheme: dark)");
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const draw = () => {
    const spec = structuredClone(content.spec);
    spec.data.values = values;
    spec.layer[1].encoding.shape.scale = { domain: content.labels };
    spec.layer[1].encoding.color.scale = { domain: content.labels, range: content.colours[night.matches ? "dark" : "light"] };
    const [ink, soft, rule] = ["--ink", "--soft", "--rule"].map(style);
    spec.config = {
      background: null,
      font: "system-ui, sans-serif",
      view: { stroke: null },
      rule: { color: soft },
      axis: { labelColor: ink, titleColor: ink, gridColor: rule, domainColor: soft, tickColor: soft, labelFontSize: 13, titleFontSize: 13, titleFontWeight: "normal" },
      legend: { labelColor: ink, labelFontSize: 13, symbolSize: 80 },
    };
    const options = { ast: true, renderer: "svg", actions: false, defaultStyle: false, bind: "#explorer-inputs" };
    document.getElementById("explorer-inputs").replaceChildren();
    return vegaEmbed("#explorer-chart", spec, { ...options, tooltip: { disableDefaultStyle: true } });
  };
  draw();
  night.addEventListener("change", draw);
})();
