"use strict";
// Draws what the data beside this script says, and keeps pictures and table on the same jobs. Nothing is fetched or stored.
(() => {
  const FINE = 1000; // from the bottom of a scale to its top, as in figures.py
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const rows = []; // of the table, by the job's place
  for (const row of byId("jobs").tBodies[0].rows) rows[row.dataset.i] = row;
  const axes = data.axes;
  const objective = axes.length - 1;
  const measured = axes[objective];
  const marks = rows.map(() => ({ learning: [], settings: [] })); // what shows each job, by picture
  const brushes = axes.map(() => null); // [low, high] on each axis
  const shown = rows.map(() => true);
  let pinned = null;
  document.documentElement.classList.add("js");

  function svg(name, attributes, parent, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    if (parent) parent.append(made);
    return made;
  }

  function html(name, properties, parent) {
    const made = Object.assign(document.createElement(name), properties);
    if (parent) parent.append(made);
    return made;
  }

  const SHADES = byId("legend").children.length;
  const valued = new Set(data.valued);
  // Of the jobs in a picture, best first: each one's colour.
  function shades(jobs) {
    const ranked = jobs.filter((job) => valued.has(job));
    const of = jobs.map(() => "none");
    ranked.forEach((_, place) => (of[place] = `k${Math.floor((place * SHADES) / ranked.length)}`)); // those without come last
    return of;
  }
  const cell = (job, column) => rows[job].cells[column].textContent;
  const words = (job) => axes.slice(0, -1).map((axis, k) => `${axis.name}=${cell(job, k + 2)}`);
  const said = (job) => `Job ${cell(job, 0)}: ${words(job).join("  ")}  →  ${axes[objective].name} ${cell(job, 1) || "none"}`;

  // One job stands out in all pictures, as a copy on top; the others step back. `quiet`: its words are in sight already.
  let front = [];
  function point(job, quiet = false) {
    const at = job ?? pinned;
    for (const mark of front) mark.remove();
    front = [];
    document.querySelectorAll(".layer").forEach((layer) => layer.classList.toggle("dimmed", at !== null));
    document.querySelectorAll("tr.on").forEach((row) => row.classList.remove("on"));
    if (at !== null) {
      rows[at].classList.add("on");
      for (const mark of [...marks[at].learning, ...marks[at].settings]) {
        const copy = mark.cloneNode();
        copy.classList.add("on");
        mark.parentNode.append(copy);
        front.push(copy);
      }
    }
    byId("readout").textContent = at === null || quiet ? "" : said(at) + (pinned === at ? "  (held: Escape lets go)" : "");
  }

  function hold(job) {
    pinned = pinned === job ? null : job;
    point(job);
  }

  // `nearest(x, y)`: the job there, or null. The keys go through the jobs that are drawn and not filtered out, best first.
  function listen(picture, nearest, drawn) {
    const place = (event) => {
      const box = picture.getBoundingClientRect();
      return nearest(event.clientX - box.left, event.clientY - box.top);
    };
    let last = null;
    picture.setAttribute("tabindex", "0");
    picture.addEventListener("pointermove", (event) => {
      const job = place(event);
      if (job !== last) point((last = job));
    });
    picture.addEventListener("pointerleave", () => point((last = null)));
    picture.addEventListener("blur", () => point((last = null)));
    picture.addEventListener("click", (event) => {
      const job = place(event);
      if (job !== null) hold(job);
    });
    picture.addEventListener("keydown", (event) => {
      if (event.target !== picture) return;
      const there = drawn().filter((job) => shown[job]);
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (step && there.length) {
        event.preventDefault();
        const at = there.indexOf(last);
        last = there[at < 0 ? (step > 0 ? 0 : there.length - 1) : (at + step + there.length) % there.length];
        point(last);
      } else if (event.key === "Enter" && last !== null) hold(last);
    });
  }

  // What can be drawn on either scale comes as it lies on the logarithmic one.
  function scaled({ kind, ticks, linear, span }) {
    if (!linear || kind === "log") return { ticks, place: (at) => at };
    const least = Math.exp(-span); // lowest by highest
    return { ticks: linear, place: (at) => (at === null ? null : Math.round((FINE * (Math.exp(span * (at / FINE - 1)) - least)) / (1 - least))) };
  }

  function switching(name, axis, draw) {
    const box = byId(name);
    box.parentNode.hidden = !axis.linear;
    box.checked = axis.kind === "log";
    box.onchange = () => {
      axis.kind = box.checked ? "log" : "linear";
      draw();
    };
  }

  // Of lines of points [x, y] (null where there is none), that which passes nearest above or below.
  function nearestLine(lines) {
    return (x, y) => {
      let best = null;
      let least = 14;
      for (const [job, points] of lines) {
        if (!shown[job]) continue;
        for (let i = 0; i < points.length; i++) {
          const [from, to] = [points[i], points[i + 1] ?? points[i]];
          if (!from || !to || x < from[0] - 8 || x > to[0] + 8) continue;
          const part = to[0] > from[0] ? Math.min(Math.max((x - from[0]) / (to[0] - from[0]), 0), 1) : 0;
          const away = Math.abs(from[1] + part * (to[1] - from[1]) - y);
          if (away < least) [best, least] = [job, away];
        }
      }
      return best;
    };
  }

  const counted = (count) => `${count} job${count === 1 ? "" : "s"}`;
  const path = (points) => points.map((p, i) => (p ? `${i && points[i - 1] ? "L" : "M"}${p[0].toFixed(1)} ${p[1].toFixed(1)}` : "")).join("");

  function line(picture, job, points, shade, where) {
    const made = svg("path", { class: `curve ${shade}`, d: path(points) }, picture);
    marks[job][where].push(made);
    points.forEach((p, i) => {
      if (p && !points[i - 1] && !points[i + 1]) marks[job][where].push(svg("circle", { class: `dot ${shade}`, cx: p[0], cy: p[1], r: 2.5 }, picture));
    });
  }

  const far = (ticks, room, length) => { // those ticks that do not run into one another
    let last = -Infinity;
    return ticks.filter(([at]) => (at - last) * length >= room * FINE && ((last = at), true));
  };
  const beside = (ticks) => 10 + 7 * Math.max(...ticks.map(([, text]) => text.length)); // the room that labels take

  function learning() {
    const box = byId("curves");
    const { jobs, x, ticks, metrics } = data.curves;
    const metric = metrics[byId("metric").selectedIndex];
    const { ticks: heights, place } = scaled(metric);
    switching("curves-log", metric, learning);
    const [width, height, left, right, top, bottom] = [box.clientWidth, 320, Math.max(58, beside(heights)), 14, 10, 40];
    const across = (at) => left + (at / FINE) * (width - left - right);
    const up = (at) => top + (1 - at / FINE) * (height - top - bottom);
    for (const of of marks) of.learning = [];
    box.textContent = "";
    const picture = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `${metric.name} by epoch, a line for each job. The arrow keys go from job to job.` }, box);
    for (const [at, text] of far(heights, 14, height - top - bottom)) {
      svg("path", { class: "grid", d: `M${left} ${up(at)}H${width - right}` }, picture);
      svg("text", { x: left - 6, y: up(at) + 4, "text-anchor": "end" }, picture, text);
    }
    for (const [at, text] of far(ticks, 30, width - left - right)) svg("text", { x: across(at), y: height - bottom + 16, "text-anchor": "middle" }, picture, text);
    svg("text", { class: "soft", x: width - right, y: height - 6, "text-anchor": "end" }, picture, "epoch");
    svg("text", { class: "soft", x: left, y: height - 6 }, picture, metric.name + (metric.kind === "log" ? ", logarithmic" : ""));
    const lines = jobs.map((job, k) => [job, metric.lines[k].map((at, i) => (at === null ? null : [across((x[k] ?? x[0])[i]), up(place(at))]))]);
    const layer = svg("g", { class: "layer" }, picture);
    const colours = shades(jobs);
    for (let k = lines.length - 1; k >= 0; k--) line(layer, ...lines[k], colours[k], "learning"); // the best on top
    listen(picture, nearestLine(lines), () => jobs);
    show();
    point(null);
  }

  const tail = (text, room) => (text.length > room ? `…${text.slice(1 - room).replace(/^\./, "")}` : text);
  const short = (text, room) => (text.length > room ? `${text.slice(0, room - 1)}…` : text);

  function settings() {
    const box = byId("parallel");
    if (!box) return;
    for (const of of marks) of.settings = [];
    box.textContent = "";
    const room = Math.max(...axes.map((axis) => Math.max(...axis.ticks.map(([, text]) => Math.min(text.length, 16)))));
    const gap = Math.max(110, 40 + room * 6.6);
    const [left, right, top, bottom, height] = [Math.max(40, 16 + Math.max(...axes[0].ticks.map(([, t]) => Math.min(t.length, 16))) * 6.8), Math.max(20, 16 + Math.max(...axes[objective].ticks.map(([, t]) => t.length)) * 6.8), 34, 14, 340];
    const width = Math.max(byId("parallel").parentNode.clientWidth, left + right + gap * objective);
    const across = (k) => left + (k * (width - left - right)) / Math.max(1, objective);
    const up = (at) => top + (1 - at / FINE) * (height - top - bottom);
    const picture = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "Settings of each job and its objective, a line for each. The arrow keys go from job to job." }, box);
    const jobs = data.valued;
    const lines = jobs.map((job) => [job, axes.map((axis, k) => [across(k), up(axis.at[job])])]);
    const layer = svg("g", { class: "layer" }, picture);
    const colours = shades(jobs);
    for (let k = lines.length - 1; k >= 0; k--) line(layer, ...lines[k], colours[k], "settings");
    axes.forEach((axis, k) => {
      const group = svg("g", {}, picture);
      svg("path", { class: "axis", d: `M${across(k)} ${top}V${height - bottom}` }, group);
      const [x, anchor] = k === 0 ? [0, "start"] : k === objective ? [width - 2, "end"] : [across(k), "middle"];
      const title = svg("text", { x, y: 14, "text-anchor": anchor, "font-weight": "bold" }, group, tail(axis.name, Math.floor((across(1) - across(0) - (k < 2 ? left / 2 : 0)) / 8)));
      svg("title", {}, title, axis.name + (axis.kind === "log" ? ", logarithmic" : ""));
      const brush = svg("rect", { class: "brush", x: across(k) - 8, width: 16, rx: 3 }, group);
      axis.brushed = () => {
        brush.setAttribute("height", brushes[k] ? up(brushes[k][0]) - up(brushes[k][1]) + 6 : 0);
        brush.setAttribute("y", brushes[k] ? up(brushes[k][1]) - 3 : 0);
        group.querySelectorAll(".tick").forEach((tick) => tick.setAttribute("aria-pressed", String(only(k, +tick.dataset.at))));
      };
      const zone = svg("rect", { class: "zone", x: across(k) - 14, y: top - 8, width: 28, height: height - top - bottom + 16 }, group);
      brushing(zone, k, (y) => Math.round((1 - (y - top) / (height - top - bottom)) * FINE), picture);
      for (const [at, text] of far(axis.ticks, 13, height - top - bottom)) {
        const tick = svg("g", { class: "tick", tabindex: 0, role: "button", "aria-label": `only ${axis.name} ${text}`, "data-at": at }, group);
        svg("text", { class: "halo", x: across(k) + (k === objective ? 7 : -7), y: up(at) + 4, "text-anchor": k === objective ? "start" : "end" }, tick, short(text, 16));
        svg("path", { class: "axis", d: `M${across(k) - 4} ${up(at)}h8` }, tick);
        if (text.length > 16) svg("title", {}, tick, text);
        const choose = () => set(k, only(k, at) ? null : [at, at]);
        tick.addEventListener("click", (event) => (event.stopPropagation(), choose()));
        tick.addEventListener("keydown", (event) => {
          if (event.key === "Enter" || event.key === " ") event.preventDefault(), choose();
        });
      }
    });
    const near = nearestLine(lines);
    listen(picture, (x, y) => (axes.some((_, k) => Math.abs(x - across(k)) < 15) ? null : near(x, y)), () => jobs);
    slices(jobs, colours);
    axes.forEach((axis) => axis.brushed());
    show();
    point(null);
  }

  function rescale() {
    const { ticks, place } = scaled(measured);
    axes[objective] = { ...measured, ticks, at: measured.at.map(place) };
    brushes[objective] = null;
  }

  const only = (k, at) => brushes[k] !== null && brushes[k][0] === at && brushes[k][1] === at;

  function set(k, range) {
    brushes[k] = range;
    axes[k].brushed();
    show();
  }

  // A drag chooses a range; a click the nearest value, or, where none is near, all again.
  function brushing(zone, k, of, picture) {
    let from = null;
    const at = (event) => Math.min(Math.max(of(event.clientY - picture.getBoundingClientRect().top), 0), FINE);
    zone.addEventListener("pointerdown", (event) => {
      from = at(event);
      zone.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    zone.addEventListener("pointermove", (event) => {
      if (from !== null && Math.abs(at(event) - from) > 12) set(k, [Math.min(from, at(event)), Math.max(from, at(event))]);
    });
    zone.addEventListener("pointerup", (event) => {
      if (from !== null && Math.abs(at(event) - from) <= 12) {
        const near = axes[k].ticks.map(([place]) => place).find((place) => Math.abs(place - from) < 35);
        set(k, near === undefined || only(k, near) ? null : [near, near]);
      }
      from = null;
    });
    zone.addEventListener("click", (event) => event.stopPropagation());
  }

  // One small picture for each setting: its values across, the objective up.
  function slices(jobs, colours) {
    const box = byId("slices");
    box.textContent = "";
    axes.slice(0, -1).forEach((axis, k) => {
      const figure = html("figure", {}, box);
      html("figcaption", { textContent: axis.name + (axis.kind === "log" ? ", logarithmic" : "") }, figure);
      const [width, height, left, right, top, bottom] = [figure.clientWidth, 170, Math.max(46, beside(axes[objective].ticks)), 12, 8, 24];
      const across = (at) => left + (at / FINE) * (width - left - right);
      const up = (at) => top + (1 - at / FINE) * (height - top - bottom);
      const picture = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `${axis.name} and ${axes[objective].name}, a point for each job. The arrow keys go from job to job.` }, figure);
      for (const [at, text] of far(axes[objective].ticks, 16, height - top - bottom)) {
        svg("path", { class: "grid", d: `M${left} ${up(at)}H${width - right}` }, picture);
        svg("text", { class: "soft", x: left - 5, y: up(at) + 4, "text-anchor": "end" }, picture, text);
      }
      const room = 8 + 6.5 * Math.max(...axis.ticks.map(([, text]) => Math.min(text.length, 9)));
      for (const [at, text] of far(axis.ticks, room, width - left - right)) svg("text", { class: "soft", x: across(at), y: height - 6, "text-anchor": at > 950 ? "end" : "middle" }, picture, short(text, 9));
      // Points of one category stand beside one another, always in the same way.
      const aside = (job) => (axis.kind === "category" ? (((job * 37) % 21) - 10) * Math.min(1, (width - left - right) / axis.ticks.length / 30) : 0);
      const layer = svg("g", { class: "layer" }, picture);
      const places = jobs.map((job) => [job, across(axis.at[job]) + aside(job), up(axes[objective].at[job])]);
      for (let i = places.length - 1; i >= 0; i--) {
        const [job, cx, cy] = places[i];
        marks[job].settings.push(svg("circle", { class: `dot ${colours[i]}`, cx: cx.toFixed(1), cy: cy.toFixed(1), r: 3 }, layer));
      }
      const nearest = (x, y) => {
        let [best, least] = [null, 12];
        for (const [job, cx, cy] of places) {
          const away = Math.hypot(cx - x, cy - y);
          if (shown[job] && away < least) [best, least] = [job, away];
        }
        return best;
      };
      listen(picture, nearest, () => jobs);
    });
  }

  // `name<=number`, `name>=number`, `name=value`; any other word is looked for in the whole row.
  const heads = [...byId("jobs").tHead.rows[0].cells].map((th) => th.textContent);
  const texts = rows.map((row) => row.textContent.toLowerCase());
  function fits(job, word) {
    const [, name, sign, value] = /^(.+?)(<=|>=|=|<|>)(.*)$/.exec(word) ?? [];
    const column = heads.indexOf(name);
    if (column < 0) return texts[job].includes(word.toLowerCase());
    const text = cell(job, column);
    if (sign === "=") return text === value || (text !== "" && value !== "" && Number(text) === Number(value));
    const [a, b] = [text === "" ? NaN : Number(text), Number(value)];
    return { "<=": a <= b, ">=": a >= b, "<": a < b, ">": a > b }[sign];
  }

  function show() {
    const asked = byId("filter").value.split(/\s+/).filter(Boolean);
    let count = 0;
    rows.forEach((row, job) => {
      shown[job] = asked.every((word) => fits(job, word)) &&
        brushes.every((brush, k) => !brush || (axes[k].at[job] !== null && axes[k].at[job] >= brush[0] && axes[k].at[job] <= brush[1]));
      row.hidden = !shown[job];
      count += shown[job];
      for (const mark of [...marks[job].learning, ...marks[job].settings]) mark.classList.toggle("out", !shown[job]);
    });
    if (pinned !== null && !shown[pinned]) hold(pinned);
    byId("count").textContent = count === rows.length ? counted(count) : `${count} of ${counted(rows.length)}`;
    byId("all").hidden = count === rows.length && !asked.length && brushes.every((brush) => !brush);
  }

  byId("filter").addEventListener("input", show);
  byId("all").addEventListener("click", () => {
    byId("filter").value = "";
    brushes.fill(null);
    axes.forEach((axis) => axis.brushed && axis.brushed());
    show();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") point((pinned = null));
  });

  // Numbers by size, words by their letters, what is empty last in either direction.
  function compare(a, b, sign) {
    if (a === "" || b === "") return (a === "") - (b === "");
    const [x, y] = [Number(a), Number(b)];
    if (!Number.isNaN(x) && !Number.isNaN(y)) return sign * (x - y);
    return (Number.isNaN(x) - Number.isNaN(y)) || sign * a.localeCompare(b, undefined, { numeric: true });
  }
  [...byId("jobs").tHead.rows[0].cells].forEach((th, column, all) => {
    if (th.classList.contains("needs-script")) return;
    const button = html("button", { type: "button" });
    button.append(...th.childNodes); // with the places where it may be broken
    th.append(button);
    if (!th.hasAttribute("aria-sort")) th.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const down = th.getAttribute("aria-sort") === "ascending";
      for (const other of all) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
      th.setAttribute("aria-sort", down ? "descending" : "ascending");
      const keyed = rows.map((row) => [row.cells[column].textContent, row]);
      keyed.sort(([a], [b]) => compare(a, b, down ? -1 : 1));
      byId("jobs").tBodies[0].append(...keyed.map(([, row]) => row));
    });
  });
  for (const row of rows) row.addEventListener("pointerenter", () => point(Number(row.dataset.i), true));
  byId("jobs").tBodies[0].addEventListener("pointerleave", () => point(null));

  for (const td of document.querySelectorAll("td[data-copy]")) {
    if (td.dataset.copy) html("button", { type: "button", className: "copy", textContent: "copy", title: td.dataset.copy }, td);
  }
  async function copy(button) {
    const text = (button.dataset.copy ? button : button.parentNode).dataset.copy;
    try {
      await navigator.clipboard.writeText(text);
    } catch { // no permission, or no clipboard for pages of this origin
      const area = html("textarea", { value: text }, document.body);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.textContent = "copied";
    setTimeout(() => (button.textContent = "copy"), 1500);
  }
  document.addEventListener("click", (event) => {
    if (event.target.matches("button.copy")) copy(event.target);
  });

  const { metrics, jobs, of, every } = data.curves;
  if (metrics.length) {
    for (const metric of metrics) html("option", { textContent: metric.name }, byId("metric"));
    byId("metric").addEventListener("change", learning);
    byId("drawn").textContent = (of > jobs.length ? `the ${jobs.length} best of ${counted(of)}` : counted(of)) + (every > 1 ? `, one of ${every} epochs` : "");
  } else byId("learning").hidden = true;

  rescale();
  if (byId("settings-log")) switching("settings-log", measured, () => (rescale(), settings()));

  let width = 0;
  function draw() {
    if (document.body.clientWidth === width) return;
    width = document.body.clientWidth;
    if (metrics.length) learning();
    settings();
  }
  draw();
  new ResizeObserver(draw).observe(document.body);
  show();
})();
