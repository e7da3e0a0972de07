// Where things are on the stage, and how they are drawn. Two canvases: spikes as pixels, and above them lines and text.
"use strict";

const GUTTER = 104, AXIS = 26, POTENTIAL_HEIGHT = 132, GAP = 12, LEVELS = 15, MOST_EDGES = 150;
const SERIES = { // of read-out units, apart also for colour-blind readers (Okabe and Ito)
  light: ["#0072b2", "#d55e00", "#009e73", "#b0578d", "#8a6d00", "#3a8fc7", "#444444"],
  dark: ["#5fb0ff", "#ff9b57", "#3ddbab", "#e79bc6", "#e6c84a", "#9ad3f5", "#cccccc"],
};

function rgb(hex) { return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)); }
function mixed(a, b, share) { return a.map((value, i) => Math.round(value + (b[i] - value) * share)); }
function pixel([r, g, b]) { return (255 << 24 | b << 16 | g << 8 | r) >>> 0; }

// A number in few digits, and one whose last digit moves with the zoom.
function short(value, digits = 4) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 1e5 || size < 1e-3 ? value.toExponential(digits - 2) : value.toPrecision(digits);
  return text.replace("-", "−");
}
function fixed(t, step) { return t.toFixed(Math.min(15, Math.max(0, -Math.floor(Math.log10(step) + 1e-9)))).replace("-", "−"); }

class Drawing {
  constructor(circuit, layers, times, raster, overlay) {
    Object.assign(this, { circuit, times, raster, overlay });
    this.lanes = layers.map((layer) => this.laneOf(layer));
    const earliest = minmax(this.circuit.times)[0];
    const first = earliest < times.end ? earliest : times.end - 1, span = times.end - first;
    this.whole = { t0: first - 0.02 * span, t1: times.end + 0.02 * span };
    this.view = { ...this.whole };
    this.chosen = null; // an event
    this.unit = null; // { lane, unit } whose potential is drawn
    this.edges = { causes: [], effects: [] };
    this.hover = null;
    this.potentials = new Map();
  }

  // The events of a layer in order of time, their rows, and how much the loss pulls at each: -LEVELS to LEVELS.
  laneOf(layer) {
    const c = this.circuit, first = layer.kind === "input" ? c.nSpikes : 0;
    const last = layer.kind === "input" ? c.nSpikes + c.inputTime.length : c.nSpikes, found = [];
    if (layer.kind !== "readout") {
      for (let e = first; e < last; e++) {
        const unit = c.senders[e] - layer.first;
        if (unit >= 0 && unit < layer.units) found.push(e);
      }
    }
    const events = Int32Array.from(found), row = events.map((e) => c.senders[e] - layer.first);
    const most = Math.max(maxAbs(c.total), 1e-300);
    const level = Int8Array.from(events, (e) => {
      const g = e < c.nSpikes ? c.total[e] : c.inputTotal[e - c.nSpikes];
      return g === 0 ? 0 : Math.sign(g) * Math.max(1, Math.round(LEVELS * Math.min(1, Math.cbrt(Math.abs(g) / most))));
    });
    return { ...layer, events, row, level, low: 0, high: layer.units, top: 0, height: 0 };
  }

  laneOfSender(sender) {
    return this.lanes.find((lane) => sender >= lane.first && sender < lane.first + lane.units) ?? null;
  }

  // ------------------------------------------------------------------------------------------------------- places

  layOut() {
    const box = this.overlay.getBoundingClientRect();
    this.width = box.width;
    this.height = box.height;
    this.ratio = window.devicePixelRatio || 1;
    for (const canvas of [this.raster, this.overlay]) {
      canvas.width = Math.max(1, Math.round(this.width * this.ratio));
      canvas.height = Math.max(1, Math.round(this.height * this.ratio));
    }
    const room = this.height - AXIS - (this.unit ? POTENTIAL_HEIGHT + GAP : 0) - GAP * this.lanes.length - 6;
    const weights = this.lanes.map((lane) => lane.kind === "readout" ? 6 : Math.min(14, Math.max(2.6, Math.sqrt(lane.units))));
    const total = weights.reduce((a, b) => a + b, 0);
    let top = 8;
    this.lanes.forEach((lane, i) => {
      lane.top = top;
      lane.height = Math.max(16, room * weights[i] / total);
      top += lane.height + GAP;
    });
    this.potentialTop = top;
    this.image = null;
  }

  x(t) { return GUTTER + (t - this.view.t0) / (this.view.t1 - this.view.t0) * (this.width - GUTTER - 12); }
  t(x) { return this.view.t0 + (x - GUTTER) / (this.width - GUTTER - 12) * (this.view.t1 - this.view.t0); }
  y(lane, row) { return lane.top + lane.height * (1 - (row + 0.5 - lane.low) / (lane.high - lane.low)); }
  laneAt(y) { return this.lanes.find((lane) => y >= lane.top - GAP / 2 && y < lane.top + lane.height + GAP / 2) ?? null; }
  rowAt(lane, y) { return Math.floor(lane.low + (1 - (y - lane.top) / lane.height) * (lane.high - lane.low)); }
  place(event) {
    const lane = this.laneOfSender(this.circuit.senders[event]), x = this.x(this.circuit.times[event]);
    return lane === null ? [x, this.height - AXIS] : [x, this.y(lane, this.circuit.senders[event] - lane.first)];
  }

  visible(lane) { // the events of a lane within the view: first and stop
    const { times } = this.circuit;
    return [firstFrom(times, lane.events, this.view.t0), firstFrom(times, lane.events, this.view.t1, true)];
  }

  // The event nearest to a point, within `reach` pixels; null if there is none.
  nearest(x, y, reach = 9) {
    const lane = this.laneAt(y);
    if (lane === null) return null;
    const times = this.circuit.times, from = firstFrom(times, lane.events, this.t(x - reach));
    let best = null, distance = reach * reach;
    for (let i = from; i < lane.events.length && times[lane.events[i]] <= this.t(x + reach); i++) {
      const dx = this.x(times[lane.events[i]]) - x, dy = (this.y(lane, lane.row[i]) - y) * 0.8, d = dx * dx + dy * dy;
      if (d < distance) { distance = d; best = lane.events[i]; }
    }
    return best;
  }

  // -------------------------------------------------------------------------------------------------------- draw

  setTheme(theme) {
    const style = getComputedStyle(document.documentElement);
    this.colors = {};
    for (const name of ["paper", "ink", "soft", "line", "track", "neutral", "earlier", "later", "mark"]) {
      this.colors[name] = style.getPropertyValue(`--${name}`).trim();
    }
    this.series = SERIES[theme];
    const [paper, neutral, earlier, later] = ["paper", "neutral", "earlier", "later"].map((n) => rgb(this.colors[n]));
    this.palettes = [0, 0.5].map((dim) => Uint32Array.from({ length: 2 * LEVELS + 1 }, (_, i) => {
      const level = i - LEVELS, full = level === 0 ? neutral : level > 0 ? earlier : later;
      const tint = level === 0 ? neutral : mixed(neutral, full, 0.25 + 0.75 * Math.abs(level) / LEVELS);
      return pixel(mixed(tint, paper, dim));
    }));
  }

  draw() {
    if (this.width < GUTTER + 40) return;
    this.drawSpikes();
    this.drawLines();
  }

  // Spikes go straight into pixels, the strongest gradient on top: 1e5 of them take a few milliseconds.
  drawSpikes() {
    const w = this.raster.width, h = this.raster.height, context = this.raster.getContext("2d");
    if (this.image === null) {
      this.image = context.createImageData(w, h);
      this.pixels = new Uint32Array(this.image.data.buffer);
      this.strength = new Uint8Array(w * h);
    }
    const { pixels, strength, ratio } = this, { times } = this.circuit;
    pixels.fill(0);
    strength.fill(0);
    const palette = this.palettes[this.chosen === null ? 0 : 1];
    const left = Math.round(GUTTER * ratio), right = w - Math.round(8 * ratio);
    const scale = (this.width - GUTTER - 12) * ratio / (this.view.t1 - this.view.t0);
    for (const lane of this.lanes) {
      const [first, stop] = this.visible(lane), rowHeight = lane.height * ratio / (lane.high - lane.low);
      const isSparse = stop - first < 1500, least = isSparse ? 7 : stop - first < 6000 ? 3 : 2;
      const tall = Math.max(least * ratio, Math.min(0.8 * rowHeight, 15 * ratio)) | 0;
      const wide = Math.max(1, Math.round((stop - first < 4000 ? 2 : 1) * ratio));
      const bottom = (lane.top + lane.height) * ratio, ceiling = Math.round(lane.top * ratio);
      for (let i = first; i < stop; i++) {
        const row = lane.row[i];
        if (row < lane.low || row >= lane.high) continue;
        const x0 = Math.max(left, (left + (times[lane.events[i]] - this.view.t0) * scale - wide / 2) | 0);
        const x1 = Math.min(right, x0 + wide), level = lane.level[i], rank = Math.abs(level) + 1;
        const y0 = Math.max(ceiling, (bottom - (row + 0.5 - lane.low) * rowHeight - tall / 2) | 0);
        const color = palette[level + LEVELS];
        for (let y = y0; y < y0 + tall && y < h; y++) {
          for (let at = y * w + x0; at < y * w + x1; at++) {
            if (rank >= strength[at]) { strength[at] = rank; pixels[at] = color; }
          }
        }
      }
    }
    context.putImageData(this.image, 0, 0);
  }

  drawLines() {
    const g = this.overlay.getContext("2d");
    g.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    g.clearRect(0, 0, this.width, this.height);
    g.font = "12px system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif";
    g.textBaseline = "middle";
    this.drawAxis(g);
    for (const lane of this.lanes) this.drawLane(g, lane);
    if (this.unit) this.drawPotential(g);
    g.save();
    g.beginPath();
    g.rect(GUTTER, 0, this.width - GUTTER, this.height - AXIS + 4);
    g.clip();
    this.drawEdges(g);
    g.restore();
  }

  drawAxis(g) {
    const bottom = this.height - AXIS, width = this.width - GUTTER - 12;
    const rough = (this.view.t1 - this.view.t0) / Math.max(2, width / 95), power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((m) => m * power >= rough * 0.999);
    g.textAlign = "center";
    const first = Math.ceil(this.view.t0 / step) * step, ticks = Math.min(60, Math.floor((this.view.t1 - first) / step) + 1);
    for (let i = 0; i < ticks; i++) {
      const t = first + i * step, x = Math.round(this.x(t)) + 0.5;
      if (x < GUTTER) continue;
      line(g, this.colors.line, 1, [[x, 4], [x, bottom]]);
      g.fillStyle = this.colors.soft;
      g.fillText(fixed(Math.abs(t) < step / 2 ? 0 : t, step), x, bottom + 12);
    }
    g.textAlign = "left";
    g.fillStyle = this.colors.soft;
    g.fillText("time", 12, bottom + 12);
    const known = this.x(Math.min(this.times.known, this.times.end)), right = this.width - 8;
    if (known < right) {
      g.fillStyle = this.colors.track;
      g.globalAlpha = 0.75;
      g.fillRect(Math.max(GUTTER, known), 4, right - Math.max(GUTTER, known), bottom - 4);
      g.globalAlpha = 1;
      if (this.times.known < this.times.end && right - known > 130) {
        g.fillStyle = this.colors.soft;
        g.fillText("not simulated: early stop", Math.max(GUTTER, known) + 8, 14);
      }
    }
  }

  drawLane(g, lane) {
    const middle = lane.top + lane.height / 2, bottom = lane.top + lane.height;
    line(g, this.colors.line, 1, [[GUTTER, Math.round(bottom + GAP / 2) + 0.5], [this.width - 8, Math.round(bottom + GAP / 2) + 0.5]]);
    g.textAlign = "left";
    g.fillStyle = this.colors.ink;
    g.font = g.font.replace(/^(600 )?/, "600 ");
    g.fillText(fitted(g, lane.name, 66), 12, middle - (lane.height > 30 ? 8 : 0));
    g.font = g.font.replace(/^600 /, "");
    g.fillStyle = this.colors.soft;
    if (lane.height > 30) g.fillText(`${lane.units} unit${lane.units === 1 ? "" : "s"}`, 12, middle + 8);
    if (lane.kind === "readout") { this.drawReadout(g, lane); return; }
    g.textAlign = "right";
    const rows = lane.height < 26 ? [] : [Math.ceil(lane.high) - 1, Math.floor(lane.low)];
    for (const row of new Set(rows)) {
      const y = Math.min(bottom - 6, Math.max(lane.top + 6, this.y(lane, row)));
      g.fillText(String(row), GUTTER - 7, y);
    }
    if (lane.names.length && lane.height / (lane.high - lane.low) > 12) {
      for (let row = Math.ceil(lane.low); row < lane.high; row++) {
        this.label(g, fitted(g, lane.names[row] ?? "", 110), this.width - 14, this.y(lane, row));
      }
    }
  }

  label(g, text, x, y, color = this.colors.soft) { // at the right of the stage, readable above spikes
    g.textAlign = "right";
    g.lineJoin = "round";
    g.strokeStyle = this.colors.paper;
    g.lineWidth = 5;
    g.strokeText(text, x, y);
    g.fillStyle = color;
    g.fillText(text, x, y);
  }

  potentialOf(index) {
    if (!this.potentials.has(index)) {
      if (this.potentials.size > 40) this.potentials.clear();
      this.potentials.set(index, this.circuit.potential(index));
    }
    return this.potentials.get(index);
  }

  drawReadout(g, lane) {
    const shown = Array.from({ length: Math.min(lane.units, this.series.length) }, (_, row) => row);
    const lines = shown.map((row) => this.trace(this.potentialOf(lane.first - this.circuit.nInputs + row)));
    const [low, high] = spanOf(lines.flatMap(valuesOf));
    const y = (v) => lane.top + lane.height * (1 - (v - low) / (high - low));
    g.save();
    g.beginPath();
    g.rect(GUTTER, lane.top - 4, this.width - GUTTER - 8, lane.height + 8);
    g.clip();
    line(g, this.colors.line, 1, [[GUTTER, y(0)], [this.width - 8, y(0)]]);
    shown.forEach((row, i) => this.stroke(g, lines[i], y, this.series[i], this.unit?.lane === lane && this.unit.row === row ? 2.6 : 1.5));
    g.restore();
    const step = Math.min(15, lane.height / shown.length);
    shown.forEach((row, i) => this.label(g, fitted(g, lane.names[row] ?? String(row), 110), this.width - 14, lane.top + 7 + i * step, this.series[i]));
  }

  // V of a unit over the view, exact: a line through all events and every second pixel, or, where events are many, for
  // every pixel the lowest and the highest V that the unit has there, at the events and at both ends.
  trace(potential) {
    const start = Math.max(this.view.t0, this.whole.t0), end = Math.min(this.view.t1, this.times.known);
    if (end <= start) return { points: [] };
    const first = potential.last(start), n = potential.last(end) - first;
    if (n <= 0.5 * this.width) return { points: this.points(potential, first, start, end) };
    return { columns: this.columns(potential, first, start, end), ink: n > 4 * this.width ? 0.5 : 1 };
  }

  points(potential, first, start, end) {
    const points = [], step = 2 * (this.view.t1 - this.view.t0) / (this.width - GUTTER - 12);
    let m = first;
    for (let t = start; t < end;) {
      const stop = Math.min(end, m + 1 < potential.at.length ? potential.at[m + 1] : Infinity);
      for (; t < stop; t += step) points.push([this.x(t), potential.after(m, t)]);
      t = stop;
      points.push([this.x(t), potential.after(m, t)]);
      m++;
      if (m < potential.at.length && t < end) points.push([this.x(t), potential.v[m]]);
    }
    return points;
  }

  columns(potential, first, start, end) {
    const columns = [], { at, v, fires } = potential;
    let m = first, from = potential.after(m, start);
    for (let x = Math.floor(this.x(start)); x < this.x(end); x++) {
      const stop = Math.min(end, this.t(x + 1));
      let low = from, high = from;
      for (; m + 1 < at.length && at[m + 1] < stop; m++) {
        low = Math.min(low, v[m + 1]);
        high = Math.max(high, fires[m + 1] ? potential.theta : v[m + 1]);
      }
      from = potential.after(m, stop);
      columns.push([x, Math.min(low, from), Math.max(high, from)]);
    }
    return columns;
  }

  stroke(g, { points, columns, ink }, y, color, width) {
    if (points) { line(g, color, width, points.map(([x, v]) => [x, y(v)])); return; }
    g.fillStyle = color;
    g.globalAlpha = ink; // a paler area where many spikes share a pixel
    for (const [x, low, high] of columns) g.fillRect(x, y(high) - width / 2, 1, y(low) - y(high) + width);
    g.globalAlpha = 1;
  }

  drawPotential(g) {
    const { lane, row } = this.unit, index = lane.first - this.circuit.nInputs + row, top = this.potentialTop;
    const bottom = this.height - AXIS - 8;
    line(g, this.colors.soft, 1, [[GUTTER, top - GAP / 2], [this.width - 8, top - GAP / 2]]);
    g.textAlign = "left";
    g.fillStyle = this.colors.ink;
    g.fillText("V of", 12, top + 12);
    g.fillText(fitted(g, `${lane.name} ${row}`, 84), 12, top + 28);
    if (lane.kind === "input") {
      g.fillStyle = this.colors.soft;
      g.fillText("an input has no potential", GUTTER + 12, (top + bottom) / 2);
      return;
    }
    const trace = this.trace(this.potentialOf(index)), theta = this.circuit.theta[index];
    const [low, high] = spanOf([...valuesOf(trace), 0, ...(Number.isFinite(theta) ? [theta] : [])]);
    const y = (v) => bottom - (bottom - top - 8) * (v - low) / (high - low);
    g.fillStyle = this.colors.soft;
    g.textAlign = "right";
    g.fillText("0", GUTTER - 7, y(0));
    g.save();
    g.beginPath();
    g.rect(GUTTER, top - 4, this.width - GUTTER - 8, bottom - top + 12);
    g.clip();
    line(g, this.colors.line, 1, [[GUTTER, y(0)], [this.width - 8, y(0)]]);
    if (Number.isFinite(theta)) line(g, this.colors.soft, 1, [[GUTTER, y(theta)], [this.width - 8, y(theta)]], [4, 4]);
    this.stroke(g, trace, y, this.colors.ink, 1.4);
    if (Number.isFinite(theta)) {
      const own = this.circuit.eventsOf(lane.first + row), times = this.circuit.times;
      const shown = own.subarray(firstFrom(times, own, this.view.t0), firstFrom(times, own, this.view.t1, true));
      if (shown.length < 200) for (const k of shown) dot(g, this.colors.soft, this.x(times[k]), y(theta), 2.5);
      if (shown.includes(this.chosen)) dot(g, this.colors.mark, this.x(times[this.chosen]), y(theta), 4);
    }
    g.restore();
    if (Number.isFinite(theta)) this.label(g, "threshold", this.width - 14, y(theta) - 9);
  }

  drawEdges(g) {
    if (this.unit) {
      const y = this.y(this.unit.lane, this.unit.row);
      g.globalAlpha = 0.5;
      if (this.unit.lane.kind !== "readout") line(g, this.colors.soft, 1, [[GUTTER, y], [this.width, y]], [1, 4]);
      g.globalAlpha = 1;
    }
    if (this.hover !== null) ring(g, this.colors.ink, ...this.place(this.hover), 6, 1.2);
    if (this.chosen === null) return;
    const here = this.place(this.chosen);
    const most = Math.max(...[this.edges.causes[0], this.edges.effects[0]].map((edge) => edge ? Math.abs(edge.share) : 0));
    for (const [edges, isCause] of [[this.edges.effects, false], [this.edges.causes, true]]) {
      for (let i = Math.min(edges.length, MOST_EDGES) - 1; i >= 0; i--) this.drawEdge(g, edges[i], isCause, here, most);
    }
    line(g, this.colors.soft, 1, [[here[0], 4], [here[0], this.height - AXIS]], [2, 3]);
    dot(g, this.colors.paper, ...here, 7.5);
    ring(g, this.colors.mark, ...here, 6.5, 2);
    dot(g, this.colors.mark, ...here, 3);
  }

  drawEdge(g, edge, isCause, here, most) {
    const there = this.place(isCause ? edge.event : edge.spike), size = most > 0 ? Math.abs(edge.share) / most : 0;
    const [from, to] = isCause ? [there, here] : [here, there];
    const bend = from[1] === to[1] ? [(from[0] + to[0]) / 2, to[1] - 26] : [this.x(edge.arrival), to[1]];
    const color = edge.share === 0 ? this.colors.neutral : edge.share > 0 ? this.colors.earlier : this.colors.later;
    g.strokeStyle = color;
    g.globalAlpha = edge.share === 0 ? 0.15 : 0.2 + 0.75 * Math.sqrt(size);
    g.lineWidth = 0.7 + 4 * size;
    g.setLineDash(isCause ? [] : [5, 3]);
    g.beginPath();
    g.moveTo(...from);
    g.quadraticCurveTo(...bend, ...to);
    g.stroke();
    g.setLineDash([]);
    dot(g, color, ...there, 2 + 3 * Math.sqrt(size));
    g.globalAlpha = 1;
  }
}

function valuesOf({ points, columns }) { return points ? points.map(([, v]) => v) : columns.flatMap(([, low, high]) => [low, high]); }
function minmax(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) { if (value < low) low = value; if (value > high) high = value; }
  return [low, high];
}
function maxAbs(values) { const [low, high] = minmax(values); return values.length ? Math.max(-low, high) : 0; }
function spanOf(values) {
  const [low, high] = minmax(values);
  if (!(high > low)) return Number.isFinite(low) ? [low - 1, low + 1] : [0, 1];
  return [low - 0.06 * (high - low), high + 0.08 * (high - low)];
}
function fitted(g, text, width) {
  if (g.measureText(text).width <= width) return text;
  while (text.length > 1 && g.measureText(`${text}…`).width > width) text = text.slice(0, -1);
  return `${text}…`;
}
function line(g, color, width, points, dashes = []) {
  g.strokeStyle = color;
  g.lineWidth = width;
  g.setLineDash(dashes);
  g.beginPath();
  points.forEach(([x, y], i) => i ? g.lineTo(x, y) : g.moveTo(x, y));
  g.stroke();
  g.setLineDash([]);
}
function dot(g, color, x, y, r) { g.fillStyle = color; g.beginPath(); g.arc(x, y, r, 0, 2 * Math.PI); g.fill(); }
function ring(g, color, x, y, r, width) { g.strokeStyle = color; g.lineWidth = width; g.beginPath(); g.arc(x, y, r, 0, 2 * Math.PI); g.stroke(); }
