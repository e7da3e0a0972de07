// The causal graph of one sample: potentials, and the derivatives of spikes by what caused them. No drawing here.
// Formulas: docs/design.md, section 3. Python has the same in fireprop/shares.py; browser/ compares the two.
"use strict";

const RESET = -1, POTENTIAL = -2; // in place of a synapse: the unit's own spike before, and its initial potential
const UNDERFLOW = 745; // exp(-x) is 0 from here on

// Membrane potential `gap` after a unit synaptic current: h(gap). Accurate through alpha = beta.
function response(gap, alpha, beta) {
  const x = Math.abs(beta - alpha) * gap;
  return gap * Math.exp(-Math.min(alpha, beta) * gap) * (x === 0 ? 1 : -Math.expm1(-x) / x);
}

// The first place in the ascending times[list[low..]] that is >= t, or > t if `after`.
function firstFrom(times, list, t, after = false) {
  let low = 0, high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1, at = times[list[middle]];
    if (at < t || (after && at === t)) low = middle + 1; else high = middle;
  }
  return low;
}

class Circuit {
  // data: the arrays of `stage.py`. Events are numbered: spikes in order of time, inputs, the start of the sample.
  constructor(data) {
    Object.assign(this, data);
    this.nSpikes = this.spikeTime.length;
    this.nUnits = this.beta.length;
    this.startSender = this.nInputs + this.nUnits;
    const hasStart = this.tStart !== null, n = this.nSpikes + this.inputTime.length + (hasStart ? 1 : 0);
    this.times = new Float64Array(n);
    this.senders = new Int32Array(n);
    this.times.set(this.spikeTime);
    this.times.set(this.inputTime, this.nSpikes);
    this.senders.set(this.spikeUnit.map((unit) => unit + this.nInputs));
    this.senders.set(this.inputUnit, this.nSpikes);
    if (hasStart) { this.times[n - 1] = this.tStart; this.senders[n - 1] = this.startSender; }
    this.eventsOf = grouped(this.senders, this.startSender + 1);
    this.synapsesFrom = grouped(this.synSender, this.startSender + 1);
    this.before = new Int32Array(this.nSpikes).fill(-1);
    this.next = new Int32Array(this.nSpikes).fill(-1);
    for (let unit = 0; unit < this.nUnits; unit++) {
      const own = this.eventsOf(this.nInputs + unit);
      for (let i = 1; i < own.length; i++) { this.before[own[i]] = own[i - 1]; this.next[own[i - 1]] = own[i]; }
    }
  }

  restart(k) { // the end of the last refractory period before spike k
    const own = this.before[k];
    return own < 0 ? -Infinity : this.spikeTime[own] + this.tRef[this.spikeUnit[k]];
  }

  // The derivative of spike k by the time of an arrival and by its weight.
  alongSynapse(k, synapse, arrival) {
    const alpha = this.synAlpha[synapse], beta = this.beta[this.spikeUnit[k]], restart = this.restart(k);
    const late = Math.max(arrival, restart), left = late > arrival ? Math.exp(-alpha * (late - arrival)) : 1;
    const gap = this.spikeTime[k] - late, h = response(gap, alpha, beta), slope = this.slope[k];
    const shift = restart > arrival ? alpha * left * h : left * (beta * h - Math.exp(-alpha * gap));
    return [-this.synWeight[synapse] * shift / slope, -left * h / slope];
  }

  alongUnit(k, event, kind) { // the same of its spike before, or of its initial potential
    const unit = this.spikeUnit[k], beta = this.beta[unit];
    if (kind === RESET) {
      return this.restartSlope[event] * Math.exp(-beta * (this.spikeTime[k] - this.restart(k))) / this.slope[k];
    }
    return -beta * this.vStart[unit] * Math.exp(-beta * (this.spikeTime[k] - this.tStart)) / this.slope[k];
  }

  edge(k, event, synapse, arrival, [byTime, byWeight]) {
    return { spike: k, event, synapse, arrival, byTime, byWeight, share: this.total[k] * byTime };
  }

  // Everything that moved spike k; the shares add up to dL/dt of the spike.
  causes(k) {
    const unit = this.spikeUnit[k], f = this.spikeTime[k], restart = this.restart(k), found = [];
    for (let s = this.synRow[unit]; s < this.synRow[unit + 1]; s++) {
      const events = this.eventsOf(this.synSender[s]), alpha = this.synAlpha[s], delay = this.synDelay[s];
      const oldest = alpha > 0 ? restart - UNDERFLOW / alpha - delay : -Infinity;
      for (let i = firstFrom(this.times, events, oldest); i < events.length; i++) {
        const arrival = this.times[events[i]] + delay;
        if (arrival >= f) break;
        found.push(this.edge(k, events[i], s, arrival, this.alongSynapse(k, s, arrival)));
      }
    }
    const own = this.before[k];
    if (own >= 0) found.push(this.edge(k, own, RESET, restart, [this.alongUnit(k, own, RESET), 0]));
    else if (this.vStart[unit] !== 0) {
      const start = this.times.length - 1;
      found.push(this.edge(k, start, POTENTIAL, this.tStart, [this.alongUnit(k, start, POTENTIAL), 0]));
    }
    return found;
  }

  // Everything that an event moved; for a spike, the shares and its direct part add up to dL/dt.
  effects(event) {
    const t = this.times[event], sender = this.senders[event], found = [];
    for (const s of this.synapsesFrom(sender)) {
      const arrival = t + this.synDelay[s], spikes = this.eventsOf(this.nInputs + this.synTarget[s]);
      for (let i = firstFrom(this.times, spikes, arrival, true); i < spikes.length; i++) {
        if (this.synAlpha[s] * (this.restart(spikes[i]) - arrival) > UNDERFLOW) break;
        found.push(this.edge(spikes[i], event, s, arrival, this.alongSynapse(spikes[i], s, arrival)));
      }
    }
    const next = event < this.nSpikes ? this.next[event] : -1;
    if (next >= 0) found.push(this.edge(next, event, RESET, this.restart(next), [this.alongUnit(next, event, RESET), 0]));
    if (sender === this.startSender) {
      for (let k = 0; k < this.nSpikes; k++) {
        if (this.before[k] < 0 && this.vStart[this.spikeUnit[k]] !== 0) {
          found.push(this.edge(k, event, POTENTIAL, t, [this.alongUnit(k, event, POTENTIAL), 0]));
        }
      }
    }
    return found;
  }

  potential(unit) { return new Potential(this, unit); }
}

// (key) => the numbers i with keys[i] = key, ascending.
function grouped(keys, n) {
  const rows = new Int32Array(n + 1), members = new Int32Array(keys.length);
  for (const key of keys) rows[key + 1]++;
  for (let key = 0; key < n; key++) rows[key + 1] += rows[key];
  const cursor = rows.slice(0, n);
  keys.forEach((key, i) => { members[cursor[key]++] = i; });
  return (key) => members.subarray(rows[key], rows[key + 1]);
}

// V of one unit in closed form between its events: spikes, ends of refractory periods, arrivals.
class Potential {
  constructor(circuit, unit) {
    const moments = [], own = circuit.eventsOf(circuit.nInputs + unit), tRef = circuit.tRef[unit];
    const alphas = [], channelOf = new Map();
    for (const k of own) {
      moments.push([circuit.times[k], 0, 0, 0], [circuit.times[k] + tRef, 1, 0, 0]);
    }
    for (let s = circuit.synRow[unit]; s < circuit.synRow[unit + 1]; s++) {
      const alpha = circuit.synAlpha[s];
      if (!channelOf.has(alpha)) { channelOf.set(alpha, alphas.length); alphas.push(alpha); }
      for (const event of circuit.eventsOf(circuit.synSender[s])) {
        moments.push([circuit.times[event] + circuit.synDelay[s], 2, circuit.synWeight[s], channelOf.get(alpha)]);
      }
    }
    if (circuit.vStart[unit] !== 0) moments.push([circuit.tStart, -1, circuit.vStart[unit], 0]);
    moments.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    this.beta = circuit.beta[unit];
    this.theta = circuit.theta[unit];
    this.alphas = alphas;
    const n = moments.length;
    this.at = new Float64Array(n); // of each event; V, the currents and whether V is held at 0 are valid from there on
    this.v = new Float64Array(n);
    this.held = new Uint8Array(n);
    this.fires = new Uint8Array(n);
    this.currents = new Float64Array(n * alphas.length);
    let lastEnd = -Infinity;
    moments.forEach(([t, kind, value, channel], m) => {
      this.at[m] = t;
      const v = m ? this.after(m - 1, t) : 0, base = m * alphas.length;
      for (let c = 0; c < alphas.length; c++) {
        this.currents[base + c] = m ? this.currents[base - alphas.length + c] * Math.exp(-alphas[c] * (t - this.at[m - 1])) : 0;
      }
      if (kind === 2) this.currents[base + channel] += value;
      if (kind === 0) { lastEnd = t + tRef; this.fires[m] = 1; }
      this.held[m] = kind === 0 || (t < lastEnd && kind !== 1) ? 1 : 0;
      this.v[m] = kind === -1 ? value : this.held[m] || kind === 1 ? 0 : v;
    });
  }

  // V at t, from the state at event m; t lies before the next event, or at it.
  after(m, t) {
    if (m < 0 || this.held[m]) return 0;
    const gap = t - this.at[m], base = m * this.alphas.length;
    let v = this.v[m] * Math.exp(-this.beta * gap);
    for (let c = 0; c < this.alphas.length; c++) v += this.currents[base + c] * response(gap, this.alphas[c], this.beta);
    return v;
  }

  // The last event before t, or -1.
  last(t) {
    let low = 0, high = this.at.length;
    while (low < high) { const middle = (low + high) >> 1; if (this.at[middle] < t) low = middle + 1; else high = middle; }
    return low - 1;
  }

  value(t) { return this.after(this.last(t), t); } // V(t-)
}

// Neumaier's sum: what is shown as a sum has the error of one rounding.
function sum(values) {
  let total = 0, lost = 0;
  for (const value of values) {
    const next = total + value;
    lost += Math.abs(total) >= Math.abs(value) ? (total - next) + value : (value - next) + total;
    total = next;
  }
  return total + lost;
}
