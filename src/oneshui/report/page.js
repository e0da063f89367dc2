"use strict";
// The explorer of identities: which runs, which set, which methods; and what a dot stands for.
(() => {
  const explorer = document.getElementById("explorer");
  if (!explorer) return;
  const form = document.getElementById("filters");
  const status = document.getElementById("explorer-status");
  const tip = document.getElementById("tip");
  const blocks = [...explorer.querySelectorAll(".block")];
  const dotsOf = (parent) => [...parent.querySelectorAll(".field circle:not(.mean)")];

  // without a script the browser shows titles; with one they are read out, and shown at once
  for (const dot of dotsOf(explorer)) {
    const title = dot.querySelector("title");
    dot.setAttribute("aria-label", title.textContent);
    dot.setAttribute("role", "img");
    dot.setAttribute("tabindex", "-1");
    dot.dataset.who = title.textContent.match(/identity \d+, seed \d+/)[0];
    title.remove();
  }

  // dots that can be seen, by distance; cx is in percent
  const visible = (field) =>
    dotsOf(field).filter((dot) => !dot.parentNode.hasAttribute("hidden"))
      .sort((a, b) => parseFloat(a.getAttribute("cx")) - parseFloat(b.getAttribute("cx")));

  // the text of a dot beside it; the same identity and seed under other methods is outlined
  function show(dot) {
    mark(dot);
    tip.textContent = dot.getAttribute("aria-label");
    tip.hidden = false;
    const box = dot.getBoundingClientRect();
    const left = Math.min(box.right + 8, document.documentElement.clientWidth - tip.offsetWidth - 8);
    const above = box.top - tip.offsetHeight - 8;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${above > 0 ? above : box.bottom + 8}px`;
  }
  function hide() {
    mark(null);
    tip.hidden = true;
  }
  function mark(dot) {
    explorer.querySelectorAll(".same").forEach((other) => other.classList.remove("same"));
    if (!dot) return;
    const alike = dot.closest(".field").querySelectorAll(`[data-who="${dot.dataset.who}"]`);
    alike.forEach((other) => other.classList.add("same"));
  }

  // one stop for the tab key in each plot; arrows walk from dot to dot
  function reach(field) {
    const dots = visible(field);
    dotsOf(field).forEach((dot) => dot.setAttribute("tabindex", "-1"));
    if (dots.length) dots[0].setAttribute("tabindex", "0");
    return dots.length;
  }

  // the axis of a plot fits the methods that are shown: all that lies in it moves, and gets new lines and numbers
  const places = new Map(); // element -> its heights as first drawn
  const heights = ["cy", "y1", "y2"];
  function fit(figure) {
    const field = figure.querySelector(".field");
    const [low, high] = [Number(field.dataset.low), Number(field.dataset.high)];
    const size = Number(field.getAttribute("height"));
    const valueOf = (place) => high - (place / size) * (high - low);
    const marks = [...field.querySelectorAll("g[data-method] > *")];
    for (const mark of marks) {
      if (!places.has(mark)) places.set(mark, heights.map((name) => mark.getAttribute(name)));
    }
    const shown = marks.filter((mark) => !mark.parentNode.hasAttribute("hidden"));
    const values = shown.flatMap((mark) => places.get(mark)).filter((place) => place !== null).map(valueOf);
    const least = values.reduce((a, b) => Math.min(a, b), 0);
    const most = values.reduce((a, b) => Math.max(a, b), 0);
    const margin = 0.05 * (most - least) || 1;
    const [bottom, top] = [least - margin, most + margin];
    const placeOf = (value) => ((top - value) / (top - bottom)) * size;
    for (const mark of marks) {
      places.get(mark).forEach((place, i) => {
        if (place !== null) mark.setAttribute(heights[i], placeOf(valueOf(place)).toFixed(1));
      });
    }
    const axis = figure.querySelector(".upright");
    field.querySelectorAll(".level").forEach((line) => line.remove());
    axis.replaceChildren();
    for (const value of ticks(bottom, top, 6)) {
      const y = placeOf(value);
      field.prepend(draw("line", { x1: 0, x2: "100%", y1: y, y2: y, class: value ? "level grid" : "level zero" }));
      const number = draw("text", { x: "100%", dx: -6, y: y + 4, "text-anchor": "end" });
      number.textContent = String(value).replace("-", "\u2212");
      axis.append(number);
    }
  }
  function ticks(low, high, most) {
    let step = 10 ** Math.floor(Math.log10((high - low) / most));
    while ((high - low) / step > most) step *= step.toExponential(0).startsWith("2") ? 2.5 : 2; // 1, 2, 5, 10
    const count = Math.floor(high / step) - Math.ceil(low / step) + 1;
    return Array.from({ length: count }, (_, i) => Number(((Math.ceil(low / step) + i) * step).toPrecision(6)));
  }
  function draw(name, attributes) {
    const made = document.createElementNS(explorer.querySelector("svg").namespaceURI, name);
    Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
    return made;
  }

  function update() {
    const chosen = new FormData(form);
    const methods = new Set(chosen.getAll("method"));
    let count = 0;
    hide();
    blocks.forEach((block) => {
      block.hidden = block.dataset.block !== chosen.get("block");
      block.querySelectorAll("figure").forEach((figure) => {
        figure.hidden = figure.dataset.set !== chosen.get("set");
        figure.querySelectorAll("g[data-method]").forEach((group) => {
          group.toggleAttribute("hidden", !methods.has(group.dataset.method));
        });
        const field = figure.querySelector(".field");
        const found = field ? reach(field) : 0;
        if (field && !block.hidden && !figure.hidden) fit(figure);
        if (!block.hidden && !figure.hidden) count = found;
      });
    });
    status.textContent = `${count} dots. Tab reaches the first, arrow keys go on by distance, Escape closes the text.`;
  }

  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.elements.all.addEventListener("click", () => {
    const boxes = [...form.querySelectorAll("input[name=method]")];
    const all = boxes.every((box) => box.checked);
    boxes.forEach((box) => { box.checked = !all; });
    update();
  });
  const dotAt = (event) => event.target.closest("circle[aria-label]");
  for (const [kind, act] of [["pointerover", show], ["focusin", show], ["pointerout", hide], ["focusout", hide]]) {
    explorer.addEventListener(kind, (event) => { if (dotAt(event)) act(dotAt(event)); });
  }
  explorer.addEventListener("keydown", (event) => {
    const dot = dotAt(event);
    if (!dot) return;
    if (event.key === "Escape") { hide(); return; }
    const dots = visible(dot.closest(".field"));
    const at = dots.indexOf(dot);
    const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: dots.length - 1 };
    const next = dots[to[event.key]];
    if (!(event.key in to)) return;
    event.preventDefault();
    if (!next) return;
    dot.setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
  });
  // a focused dot keeps its text when it is scrolled into view
  const follow = () => (dotAt({ target: document.activeElement }) ? show(document.activeElement) : hide());
  addEventListener("scroll", follow, { passive: true });
  explorer.classList.add("filtered"); // the form has the colours, so that legends are for print only
  form.hidden = false;
  update();
})();
