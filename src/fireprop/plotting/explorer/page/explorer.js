// The page: what is chosen, what the panel says about it, mouse, keys and search. All text of the data goes in as text.
"use strict";

const MOST_ROWS = 60, MOST_SUMMED = 3e6;

function decoded({ kind, n, size, base64 }) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const type = kind === "f" ? { 4: Float32Array, 8: Float64Array }[size] : { 1: Uint8Array, 2: Uint16Array, 4: Int32Array }[size];
  const given = new type(bytes.buffer), numbers = new (kind === "f" ? Float64Array : Int32Array)(n);
  if (given.length === 1) numbers.fill(given[0]); else numbers.set(given);
  return numbers;
}

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value); else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}
const byId = (id) => document.getElementById(id);

class Explorer {
  constructor(data) {
    const arrays = Object.fromEntries(Object.entries(data.arrays).map(([name, packed]) => [name, decoded(packed)]));
    const synTarget = new Int32Array(arrays.synSender.length);
    for (let unit = 0; unit + 1 < arrays.synRow.length; unit++) synTarget.fill(unit, arrays.synRow[unit], arrays.synRow[unit + 1]);
    this.circuit = new Circuit({ ...arrays, synTarget, nInputs: data.nInputs, tStart: data.times.start });
    this.drawing = new Drawing(this.circuit, data.layers, data.times, byId("raster"), byId("overlay"));
    this.data = data;
    this.past = [];
    byId("title").textContent = data.title;
    byId("title").title = data.title;
    for (const [name, value] of Object.entries({ ...data.facts, spikes: this.circuit.nSpikes.toLocaleString("en") })) {
      byId("facts").append(element("div", {}, element("dt", {}, name), element("dd", {}, value)));
    }
    this.setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    this.listen();
    new ResizeObserver(() => { this.drawing.layOut(); this.redraw(); }).observe(byId("stage"));
    this.drawing.layOut();
    this.showNothing();
    this.redraw();
  }

  redraw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.drawing.draw(); });
  }

  setTheme(theme) {
    this.theme = theme;
    document.documentElement.dataset.theme = theme;
    byId("theme").textContent = theme === "dark" ? "Light" : "Dark";
    this.drawing.setTheme(theme);
    this.showLegend();
    this.redraw();
  }

  showLegend() {
    const item = (color, text) => element("span", {}, element("i", { style: `background: var(--${color})` }), text);
    byId("legend").replaceChildren(
      item("earlier", "firing earlier lowers the loss (dL/dt > 0)"), item("later", "firing later lowers the loss (dL/dt < 0)"),
      item("neutral", "does not matter to the loss"), element("span", {}, "solid: causes, dashed: effects; width: share of the gradient"),
    );
  }

  // ----------------------------------------------------------------------------------------------------- choosing

  nameOf(event) {
    const sender = this.circuit.senders[event], lane = this.drawing.laneOfSender(sender);
    return lane === null ? "start of the sample" : this.nameOfUnit(lane, sender - lane.first);
  }

  nameOfUnit(lane, row) {
    return `${lane.name} ${row}${lane.names[row] === undefined ? "" : ` (${lane.names[row]})`}`;
  }

  choose(event, { remember = true } = {}) {
    if (remember && this.drawing.chosen !== null && this.drawing.chosen !== event) this.past.push(this.drawing.chosen);
    const sender = this.circuit.senders[event], lane = this.drawing.laneOfSender(sender);
    this.drawing.chosen = event;
    const bySize = (a, b) => Math.abs(b.share) - Math.abs(a.share);
    const causes = event < this.circuit.nSpikes ? this.circuit.causes(event) : [];
    this.drawing.edges = { causes: causes.sort(bySize), effects: this.circuit.effects(event).sort(bySize) };
    this.setUnit(lane === null || lane.kind === "input" ? null : { lane, row: sender - lane.first });
    this.show(event);
    this.showEvent(event, lane);
    this.redraw();
  }

  chooseUnit(lane, row) {
    this.drawing.chosen = null;
    this.drawing.edges = { causes: [], effects: [] };
    this.setUnit({ lane, row });
    this.showRow(lane, row);
    this.showUnit(lane, row);
    this.redraw();
  }

  setUnit(unit) {
    const had = this.drawing.unit !== null;
    this.drawing.unit = unit;
    if (had !== (unit !== null)) this.drawing.layOut();
  }

  clear() {
    this.drawing.chosen = null;
    this.drawing.edges = { causes: [], effects: [] };
    this.setUnit(null);
    this.past = [];
    this.showNothing();
    this.redraw();
  }

  back() { const event = this.past.pop(); if (event !== undefined) this.choose(event, { remember: false }); }

  show(event) { // move the view so that an event is in it
    const t = this.circuit.times[event], view = this.drawing.view, width = view.t1 - view.t0;
    if (t < view.t0 || t > view.t1) this.setView(t - width / 2, t + width / 2);
    const sender = this.circuit.senders[event], lane = this.drawing.laneOfSender(sender);
    if (lane !== null) this.showRow(lane, sender - lane.first);
  }

  showRow(lane, row) {
    if (row >= lane.low && row < lane.high) return;
    const rows = lane.high - lane.low, low = Math.max(0, Math.min(lane.units - rows, row - rows / 2));
    Object.assign(lane, { low, high: low + rows });
  }

  setView(t0, t1) {
    const { whole } = this.drawing, least = 1e-12 * Math.max(1, Math.abs(whole.t0), Math.abs(whole.t1));
    const width = Math.min(Math.max(t1 - t0, least), whole.t1 - whole.t0);
    const from = Math.min(Math.max((t0 + t1 - width) / 2, whole.t0), whole.t1 - width);
    this.drawing.view = { t0: from, t1: from + width };
    this.redraw();
  }

  zoom(factor, x = null) {
    const { view } = this.drawing, t = x === null ? this.centre() : this.drawing.t(x);
    this.setView(t + (view.t0 - t) * factor, t + (view.t1 - t) * factor);
  }

  centre() {
    const { view, chosen } = this.drawing, t = chosen === null ? NaN : this.circuit.times[chosen];
    return t >= view.t0 && t <= view.t1 ? t : (view.t0 + view.t1) / 2;
  }

  zoomRows(lane, factor, y) {
    const at = lane.low + (1 - (y - lane.top) / lane.height) * (lane.high - lane.low);
    const rows = Math.min(lane.units, Math.max(Math.min(4, lane.units), (lane.high - lane.low) * factor));
    const low = Math.min(Math.max(0, at + (lane.low - at) * rows / (lane.high - lane.low)), lane.units - rows);
    Object.assign(lane, { low, high: low + rows });
    this.redraw();
  }

  pan(share) {
    const { view } = this.drawing, by = share * (view.t1 - view.t0);
    this.setView(view.t0 + by, view.t1 + by);
  }

  showWhole() {
    for (const lane of this.drawing.lanes) Object.assign(lane, { low: 0, high: lane.units });
    this.setView(this.drawing.whole.t0, this.drawing.whole.t1);
  }

  // --------------------------------------------------------------------------------------------------- the panel

  showNothing() {
    const lanes = this.drawing.lanes.map((lane) => element("tr", { onclick: () => this.chooseUnit(lane, 0), tabindex: 0 },
      element("td", {}, lane.name), element("td", {}, lane.units.toLocaleString("en")),
      element("td", {}, lane.kind === "readout" ? "–" : lane.events.length.toLocaleString("en"))));
    byId("panel").replaceChildren(
      element("h2", {}, "Choose a spike"),
      element("p", { class: "soft" }, "Click a spike to see what caused it, what it caused, and how much of the gradient passes along each edge."),
      element("table", {}, element("thead", {}, row("th", "layer", "units", "spikes")), element("tbody", {}, ...lanes)),
      element("h3", {}, "How to move"),
      element("ul", { class: "plain soft" },
        element("li", {}, "Wheel: zoom in time. Alt and wheel: zoom into the units of a layer."),
        element("li", {}, "Drag: move. Double click: show the whole sample."),
        element("li", {}, "Click beside a spike: the potential of that unit."),
        element("li", {}, "Arrow keys: walk through spikes, causes and effects. ? lists all keys.")),
    );
  }

  showEvent(event, lane) {
    const c = this.circuit, isSpike = event < c.nSpikes, { causes, effects } = this.drawing.edges;
    const total = isSpike ? c.total[event] : event < c.times.length - (c.tStart !== null) ? c.inputTotal[event - c.nSpikes] : null;
    const parts = [element("h2", {}, this.nameOf(event)), element("p", { class: "number soft" }, `t = ${c.times[event]}`.replace("-", "−"))];
    if (isSpike) {
      const order = c.eventsOf(c.senders[event]).indexOf(event) + 1, n = c.eventsOf(c.senders[event]).length;
      parts[1].append(element("br"), `spike ${order} of ${n} of this unit, slope ${short(c.slope[event])}`);
    }
    if (total !== null) parts.push(pull(total));
    const direct = isSpike ? c.direct[event] : 0, later = sum(effects.map((edge) => edge.share));
    if (total !== null) {
      parts.push(
        element("h3", {}, "Where its gradient comes from"),
        this.sums([["loss, directly", direct], [`through ${effects.length} later spike${effects.length === 1 ? "" : "s"}`, later]],
          sum([direct, ...effects.map((edge) => edge.share)]), total, "effects"));
    }
    if (isSpike) {
      parts.push(element("h3", {}, "Where its gradient goes"),
        this.sums([[`to ${causes.length} cause${causes.length === 1 ? "" : "s"}`, sum(causes.map((edge) => edge.share))]],
          sum(causes.map((edge) => edge.share)), total, "causes"));
      parts.push(...this.table("Causes", causes, (edge) => edge.event));
    }
    parts.push(...this.table("Effects", effects, (edge) => edge.spike));
    if (lane !== null && lane.kind !== "input") {
      const unit = c.senders[event] - lane.first;
      parts.push(element("p", {}, element("button", { onclick: () => this.chooseUnit(lane, unit) }, `All of ${this.nameOfUnit(lane, unit)}`)));
    }
    this.fill(parts);
    byId("status").textContent = total === null ? this.nameOf(event) : `${this.nameOf(event)}, dL/dt ${short(total)}`;
  }

  fill(parts) {
    const had = byId("panel").contains(document.activeElement);
    byId("panel").replaceChildren(...parts);
    byId("panel").scrollTop = 0;
    if (had) byId("stage").focus(); // a row that was chosen by a key is gone
  }

  // Parts, their sum, and the gradient of reverse mode, which the sum must equal.
  sums(rows, found, wanted, kind) {
    const cells = rows.flatMap(([name, value]) => [element("span", {}, name), element("span", {}, short(value, 6))]);
    const difference = Math.abs(found - wanted);
    return element("div", { class: "sum", "data-kind": kind, "data-sum": found, "data-gradient": wanted },
      ...cells, element("span", { class: "total" }, "sum"), element("span", { class: "total" }, short(found, 6)),
      element("span", { class: "check" }, "dL/dt by reverse mode"), element("span", { class: "check" }, short(wanted, 6)),
      element("span", { class: "check" }, "difference"), element("span", { class: "check" }, difference === 0 ? "0" : short(difference, 3)));
  }

  table(name, edges, other) {
    if (!edges.length) return [element("h3", {}, name, element("span", { class: "soft" }, "none"))];
    const most = Math.abs(edges[0].share), c = this.circuit, passing = edges.filter((edge) => edge.share !== 0).length;
    const shown = edges.slice(0, Math.min(MOST_ROWS, Math.max(passing, 3)));
    const rows = shown.map((edge) => {
      const what = edge.synapse === RESET ? (name === "Causes" ? "own reset" : "own next spike") : this.nameOf(other(edge));
      const go = () => { if (this.drawing.laneOfSender(c.senders[other(edge)]) !== null) this.choose(other(edge)); };
      const made = element("tr", { tabindex: 0, title: this.about(edge), onclick: go },
        element("td", {}, what), element("td", {}, short(c.times[other(edge)], 5)),
        element("td", {}, edge.synapse >= 0 ? short(c.synWeight[edge.synapse], 3) : ""),
        element("td", { class: "bar" }, bar(edge.share, most)), element("td", {}, short(edge.share, 4)));
      return made;
    });
    const rest = edges.slice(shown.length), more = sum(rest.map((edge) => edge.share));
    return [
      element("h3", {}, name, element("span", { class: "soft" }, `${edges.length}, largest share first`)),
      element("table", {}, element("thead", {}, row("th", "unit", "t", "weight", "", "share")), element("tbody", {}, ...rows)),
      rest.length ? element("p", { class: "soft number" }, passing > MOST_ROWS ? `and ${rest.length} more, together ${short(more)}` : `and ${rest.length} more, which pass nothing on`) : null,
    ].filter((part) => part !== null);
  }

  about(edge) {
    const lines = [`from ${this.nameOf(edge.event)} at ${this.circuit.times[edge.event]}`, `to ${this.nameOf(edge.spike)} at ${this.circuit.times[edge.spike]}`];
    if (edge.synapse >= 0) {
      lines.push(`arrives at ${edge.arrival}, delay ${this.circuit.synDelay[edge.synapse]}, weight ${this.circuit.synWeight[edge.synapse]}`);
      lines.push(`dL/dw through this edge: ${this.circuit.total[edge.spike] * edge.byWeight}`);
    }
    return [...lines, `derivative of the later time by the earlier: ${edge.byTime}`, `share: ${edge.share}`].join("\n");
  }

  showUnit(lane, unit) {
    const c = this.circuit, events = [...c.eventsOf(lane.first + unit)];
    const parts = [element("h2", {}, this.nameOfUnit(lane, unit))];
    if (lane.kind !== "input") {
      const index = lane.first - c.nInputs + unit;
      parts.push(element("p", { class: "number soft" }, `tau_mem ${short(1 / c.beta[index])}${Number.isFinite(c.theta[index]) ? `, threshold ${short(c.theta[index])}, t_ref ${short(c.tRef[index])}` : ", never fires"}`));
      if (lane.kind === "spikes") parts.push(...this.weightsOf(index, events));
    }
    if (lane.kind !== "readout") {
      const most = maxAbs(events.map((e) => this.gradientOf(e)));
      parts.push(element("h3", {}, "Spikes", element("span", { class: "soft" }, String(events.length))));
      if (events.length) parts.push(element("table", {}, element("thead", {}, row("th", "t", "", "dL/dt")),
        element("tbody", {}, ...events.slice(0, MOST_ROWS).map((e) => element("tr", { tabindex: 0, onclick: () => this.choose(e) },
          element("td", {}, short(c.times[e], 7)), element("td", { class: "bar" }, bar(this.gradientOf(e), most)), element("td", {}, short(this.gradientOf(e))))))));
      if (events.length > MOST_ROWS) parts.push(element("p", { class: "soft" }, `and ${events.length - MOST_ROWS} more`));
    }
    this.fill(parts);
    byId("status").textContent = `${this.nameOfUnit(lane, unit)}, ${events.length} spikes`;
  }

  gradientOf(event) { return event < this.circuit.nSpikes ? this.circuit.total[event] : this.circuit.inputTotal[event - this.circuit.nSpikes]; }

  // dL/dw of every synapse of a unit by reverse mode, compared with the sum over the causes of all its spikes.
  weightsOf(index, events) {
    const c = this.circuit, first = c.synRow[index], stop = c.synRow[index + 1];
    if (first === stop) return [];
    const order = Array.from({ length: stop - first }, (_, i) => first + i).sort((a, b) => Math.abs(c.synGradient[b]) - Math.abs(c.synGradient[a]));
    const most = Math.abs(c.synGradient[order[0]]), parts = [element("h3", {}, "dL/dw of its synapses", element("span", { class: "soft" }, String(stop - first)))];
    const arrivals = order.reduce((n, s) => n + c.eventsOf(c.synSender[s]).length, 0);
    if (arrivals * events.length <= MOST_SUMMED) {
      const totals = new Float64Array(stop - first);
      for (const k of events) for (const edge of c.causes(k)) if (edge.synapse >= 0) totals[edge.synapse - first] += c.total[k] * edge.byWeight;
      const worst = maxAbs(totals.map((value, i) => value - c.synGradient[first + i]));
      parts.push(element("p", { class: "soft number", id: "weight-check", "data-difference": worst }, `summed over all spikes: differs from reverse mode by ${worst === 0 ? "0" : short(worst, 3)} at most`));
    }
    const rows = order.slice(0, 12).map((s) => {
      const lane = this.drawing.laneOfSender(c.synSender[s]);
      return element("tr", { tabindex: 0, onclick: () => { if (lane) this.chooseUnit(lane, c.synSender[s] - lane.first); } },
        element("td", {}, lane === null ? "start" : this.nameOfUnit(lane, c.synSender[s] - lane.first)),
        element("td", {}, short(c.synWeight[s], 3)), element("td", { class: "bar" }, bar(c.synGradient[s], most)), element("td", {}, short(c.synGradient[s])));
    });
    parts.push(element("table", {}, element("thead", {}, row("th", "from", "weight", "", "dL/dw")), element("tbody", {}, ...rows)));
    return parts;
  }

  // ------------------------------------------------------------------------------------------------------- search

  // Units whose layer and number fit a text: "17", "hidden 17", "output".
  find(text) {
    const [, word, digits] = text.trim().toLowerCase().match(/^(.*?)[\s:#,]*(\d*)$/), found = [];
    for (const lane of this.drawing.lanes) {
      const named = lane.names.findIndex((name) => word && name.toLowerCase().includes(word));
      if (word && named >= 0 && !digits) found.push({ lane, row: named });
      if (word && !lane.name.toLowerCase().includes(word)) continue;
      if (digits === "" ? word : Number(digits) < lane.units) found.push({ lane, row: Number(digits || 0) });
    }
    return found.slice(0, 12);
  }

  showMatches() {
    const found = this.find(byId("query").value), list = byId("matches");
    list.hidden = byId("query").value.trim() === "";
    list.replaceChildren(...found.map(({ lane, row: unit }, i) => element("li", { "aria-selected": i === 0, onmousedown: (e) => { e.preventDefault(); this.take({ lane, row: unit }); } },
      element("span", {}, this.nameOfUnit(lane, unit)),
      element("span", { class: "soft" }, lane.kind === "readout" ? "" : `${this.circuit.eventsOf(lane.first + unit).length} spikes`))));
    if (!found.length) list.append(element("li", { class: "soft" }, "no such unit"));
    return found;
  }

  take({ lane, row: unit }) {
    byId("matches").hidden = true;
    byId("query").value = "";
    byId("stage").focus();
    this.chooseUnit(lane, unit);
  }

  // ---------------------------------------------------------------------------------------------- mouse and keys

  listen() {
    const stage = byId("stage"), overlay = byId("overlay");
    const at = (e) => { const box = overlay.getBoundingClientRect(); return [e.clientX - box.left, e.clientY - box.top]; };
    let drag = null;
    overlay.addEventListener("wheel", (e) => {
      e.preventDefault();
      const [x, y] = at(e), factor = Math.exp(Math.max(-0.5, Math.min(0.5, (e.deltaY || e.deltaX) * 0.0018))), lane = this.drawing.laneAt(y);
      if (e.altKey) { if (lane !== null) this.zoomRows(lane, factor, y); }
      else if (e.shiftKey || Math.abs(e.deltaX) > Math.abs(e.deltaY)) this.pan((e.deltaX || e.deltaY) / 900);
      else this.zoom(factor, x);
    }, { passive: false });
    overlay.addEventListener("pointerdown", (e) => {
      overlay.setPointerCapture(e.pointerId);
      drag = { from: at(e), last: at(e), moved: false, lane: this.drawing.laneAt(at(e)[1]) };
    });
    overlay.addEventListener("pointermove", (e) => {
      const [x, y] = at(e);
      if (drag !== null) {
        drag.moved ||= Math.hypot(x - drag.from[0], y - drag.from[1]) > 4;
        if (drag.moved) this.dragged(drag, x, y);
        drag.last = [x, y];
      }
      this.hovered(drag !== null && drag.moved ? null : this.drawing.nearest(x, y), x, y);
    });
    overlay.addEventListener("pointerup", (e) => {
      if (drag !== null && !drag.moved) this.clicked(...at(e));
      drag = null;
    });
    overlay.addEventListener("pointerleave", () => this.hovered(null, 0, 0));
    overlay.addEventListener("dblclick", () => this.showWhole());
    stage.addEventListener("keydown", (e) => this.pressed(e));
    document.addEventListener("keydown", (e) => {
      if (e.target === document.body || byId("panel").contains(e.target)) this.pressed(e);
    });
    byId("query").addEventListener("input", () => this.showMatches());
    byId("query").addEventListener("keydown", (e) => { if (e.key === "Escape") { byId("query").value = ""; byId("matches").hidden = true; stage.focus(); } });
    byId("query").addEventListener("blur", () => { byId("matches").hidden = true; });
    byId("search").addEventListener("submit", (e) => { e.preventDefault(); const [first] = this.showMatches(); if (first) this.take(first); });
    const clicks = { "zoom-in": () => this.zoom(0.6), "zoom-out": () => this.zoom(1 / 0.6), whole: () => this.showWhole(),
      theme: () => this.setTheme(this.theme === "dark" ? "light" : "dark"), keys: () => byId("help").showModal() };
    for (const [id, act] of Object.entries(clicks)) byId(id).addEventListener("click", act);
    for (const [keys, what] of KEYS) byId("key-table").append(element("tr", {}, element("td", {}, ...keys.map((key) => element("kbd", {}, key))), element("td", {}, what)));
  }

  dragged(drag, x, y) {
    const { view, width } = this.drawing, by = (drag.last[0] - x) / (width - GUTTER - 12) * (view.t1 - view.t0);
    this.setView(view.t0 + by, view.t1 + by);
    if (drag.lane !== null && drag.lane.high - drag.lane.low < drag.lane.units) {
      const rows = drag.lane.high - drag.lane.low, low = drag.lane.low + (y - drag.last[1]) / drag.lane.height * rows;
      const from = Math.min(Math.max(0, low), drag.lane.units - rows);
      Object.assign(drag.lane, { low: from, high: from + rows });
    }
  }

  clicked(x, y) {
    byId("stage").focus({ preventScroll: true });
    const event = this.drawing.nearest(x, y), lane = this.drawing.laneAt(y);
    if (event !== null) this.choose(event);
    else if (lane !== null && y < this.drawing.potentialTop - GAP) {
      const names = lane.kind === "readout" ? (this.drawing.unit?.lane === lane ? (this.drawing.unit.row + 1) % lane.units : 0) : this.drawing.rowAt(lane, y);
      this.chooseUnit(lane, Math.max(0, Math.min(lane.units - 1, names)));
    }
  }

  hovered(event, x, y) {
    const tip = byId("tip");
    if (event !== this.drawing.hover) { this.drawing.hover = event; this.redraw(); }
    let text = event === null ? "" : `${this.nameOf(event)}\nt = ${short(this.circuit.times[event], 7)}\ndL/dt = ${short(this.gradientOf(event))}`;
    const unit = this.drawing.unit;
    if (unit && unit.lane.kind !== "input" && y > this.drawing.potentialTop && x > GUTTER) {
      const t = this.drawing.t(x);
      if (t <= this.data.times.known) text = `V(${short(t, 6)}) = ${short(this.drawing.potentialOf(unit.lane.first - this.circuit.nInputs + unit.row).value(t), 6)}`;
    }
    tip.hidden = text === "";
    if (tip.hidden) return;
    tip.textContent = text;
    tip.style.left = `${Math.min(x + 14, this.drawing.width - tip.offsetWidth - 6)}px`;
    tip.style.top = `${Math.max(4, Math.min(y + 14, this.drawing.height - tip.offsetHeight - 6))}px`;
  }

  pressed(e) {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    if (e.key === "Enter" && e.target.tagName === "TR") { e.target.click(); return; }
    const act = this.actions()[e.key.length === 1 ? e.key.toLowerCase() : e.key];
    if (act === undefined || act() === false) return;
    e.preventDefault();
  }

  actions() {
    const { chosen, edges } = this.drawing, c = this.circuit;
    const step = (by) => {
      if (chosen === null) { this.pan(0.15 * by); return; }
      const own = c.eventsOf(c.senders[chosen]), next = own[own.indexOf(chosen) + by];
      if (next !== undefined) this.choose(next);
    };
    const walk = (list, other) => {
      if (chosen === null) return this.first();
      const edge = list.find((each) => this.drawing.laneOfSender(c.senders[other(each)]) !== null);
      if (edge !== undefined) this.choose(other(edge));
    };
    return {
      ArrowLeft: () => step(-1), ArrowRight: () => step(1),
      ArrowUp: () => walk(edges.causes, (edge) => edge.event), ArrowDown: () => walk(edges.effects, (edge) => edge.spike),
      "+": () => this.zoom(0.6), "=": () => this.zoom(0.6), "-": () => this.zoom(1 / 0.6), 0: () => this.showWhole(),
      a: () => this.pan(-0.2), d: () => this.pan(0.2), "[": () => this.neighbour(-1), "]": () => this.neighbour(1),
      Backspace: () => this.back(), Escape: () => this.clear(), t: () => this.setTheme(this.theme === "dark" ? "light" : "dark"),
      "/": () => byId("query").focus(), "?": () => byId("help").showModal(), Enter: () => (chosen === null ? this.first() : false),
    };
  }

  first() { // the spike with the largest gradient
    const most = maxAbs(this.circuit.total), event = this.circuit.total.findIndex((g) => Math.abs(g) === most);
    if (event >= 0) this.choose(event);
  }

  neighbour(by) {
    const { unit } = this.drawing;
    if (unit === null) return;
    const next = unit.row + by;
    if (next >= 0 && next < unit.lane.units) this.chooseUnit(unit.lane, next);
  }
}

const KEYS = [
  [["←", "→"], "the spike of this unit before, or after; without a chosen spike, move"], [["↑"], "the strongest cause"], [["↓"], "the strongest effect"],
  [["Enter"], "the spike with the largest gradient"], [["Backspace"], "back"], [["[", "]"], "the unit below, or above"],
  [["+", "−"], "zoom"], [["0"], "show the whole sample"], [["A", "D"], "move in time"], [["/"], "find a unit"], [["T"], "light or dark"], [["Esc"], "choose nothing"],
];

function row(tag, ...texts) { return element("tr", {}, ...texts.map((text) => element(tag, {}, text))); }

function pull(gradient) {
  if (gradient === 0) return element("p", { class: "pull soft" }, "This time does not matter to the loss.");
  const kind = gradient > 0 ? "earlier" : "later";
  return element("p", { class: `pull ${kind}` }, `dL/dt = ${short(gradient, 6)}: ${kind === "earlier" ? "◀ earlier" : "later ▶"} lowers the loss`);
}

// A bar to the left for a share > 0 (earlier lowers the loss), to the right for one < 0.
function bar(share, most) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), length = most > 0 ? 31 * Math.abs(share) / most : 0;
  for (const [name, value] of Object.entries({ width: 64, height: 10, "aria-hidden": true })) svg.setAttribute(name, value);
  for (const [x, width, fill] of [[share > 0 ? 32 - length : 32, length, share > 0 ? "var(--earlier)" : "var(--later)"], [31.5, 1, "var(--neutral)"]]) {
    const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    for (const [name, value] of Object.entries({ x, width, y: 1, height: 8 })) rect.setAttribute(name, value);
    rect.style.fill = fill;
    svg.append(rect);
  }
  return svg;
}

const explorer = new Explorer(JSON.parse(byId("data").textContent));
