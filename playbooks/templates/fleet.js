/* Copyright (c) 2026, volt.backup contributors
   GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
   SPDX-License-Identifier: GPL-3.0-or-later */
"use strict";
(() => {
  // Names and reasons come from hosts: they become text nodes and attributes' values, never markup.
  const SVG = "http://www.w3.org/2000/svg", DAYS = 90, CHUNK = 60, PRINTED = 2000;
  const data = JSON.parse(document.getElementById("data").textContent);
  const rows = data.rows.map((values, at) => {
    const row = { at };
    data.keys.forEach((key, place) => { row[key] = values[place] ?? null; });
    row.hostName = data.hosts[row.host] ?? "";
    [row.word, row.kind, row.advice] = data.states[row.state];
    row.name = row.workload ?? row.what ?? "";
    row.advice = row.advice && (row.workload !== null || row.kind === "unknown") ? row.advice.replaceAll("WORKLOAD", row.name).replaceAll("HOST", row.hostName) : null;
    row.hay = [row.hostName, row.name, row.word, row.reason].join("\n").toLowerCase();
    return row;
  });

  // ---- making elements

  const set = (element, attributes, children) => {
    for (const [key, value] of Object.entries(attributes || {})) {
      if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
      else if (value !== null && value !== false) element.setAttribute(key, value === true ? "" : value);
    }
    element.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return element;
  };
  const make = (tag, attributes, ...children) => set(document.createElement(tag), attributes, children);
  const draw = (tag, attributes, ...children) => set(document.createElementNS(SVG, tag), attributes, children);

  // ---- words

  const span = (seconds) => {
    if (seconds === null) return "–";
    const parts = [[Math.floor(seconds / 86400), "d"], [Math.floor(seconds / 3600) % 24, "h"], [Math.floor(seconds / 60) % 60, "m"], [Math.floor(seconds) % 60, "s"]];
    if (parts[0][0] >= 730) return `${Math.floor(parts[0][0] / 365)} years`;
    const first = parts.findIndex(([number]) => number > 0);
    return first < 0 ? "0s" : parts.slice(first, first + 2).filter(([number]) => number).map(([number, unit]) => `${number}${unit}`).join(" ");
  };
  const limit = (seconds) => seconds % 86400 === 0 ? `${seconds / 86400}d` : seconds % 3600 === 0 && seconds < 604800 ? `${seconds / 3600}h` : span(seconds);
  const moment = (seconds) => {
    const date = new Date(seconds * 1000);
    return seconds === null || Number.isNaN(date.getTime()) ? "–" : `${date.toISOString().slice(0, 16).replace("T", " ")} UTC`;
  };
  const bytes = (number) => {
    if (number === null) return "–";
    const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let at = 0;
    while (number >= 1024 && at < units.length - 1) { number /= 1024; at += 1; }
    return `${at && number < 100 ? number.toFixed(1) : Math.round(number)} ${units[at]}`;
  };
  const counted = (number, word) => `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;
  const every = (row) => typeof row.every === "number" ? `every ${span(row.every)}` : row.every ?? "–";

  // ---- charts

  const height = (digit) => digit === "_" ? null : parseInt(digit, 36) / 35;
  const spark = (levels, bars, label) => {
    if (!levels) return null;
    const heights = [...levels].map(height), width = 60, tall = 20, step = width / 30, left = width - heights.length * step;
    const chart = draw("svg", { class: "spark", viewBox: `0 0 ${width} 22`, role: "img", "aria-label": label });
    let path = "", pen = false, last = null;
    heights.forEach((level, at) => {
      const x = left + at * step;
      if (level === null) { pen = false; return; }
      const y = 1 + tall * (1 - level);
      if (bars) path += `M${x.toFixed(1)} 21.5h1.4V${Math.min(y, 20.7).toFixed(1)}h-1.4z`;
      else path += `${pen ? "L" : "M"}${(x + 1).toFixed(1)} ${y.toFixed(1)}`;
      last = [x + 1, y];
      pen = true;
    });
    chart.append(draw("path", { class: bars ? "bars" : "run", d: path }));
    if (!bars && last) chart.append(draw("circle", { class: "dot", cx: last[0].toFixed(1), cy: last[1].toFixed(1), r: 2 }));
    return chart;
  };
  const WORDS = { g: "good", u: "unstable", s: "doubtful", f: "failed", "-": "nothing known" };
  const daySum = (row) => {
    const counts = {};
    for (const letter of row.days) counts[letter] = (counts[letter] || 0) + 1;
    return Object.entries(WORDS).filter(([letter]) => counts[letter]).map(([letter, word]) => `${counts[letter]} ${word}`).join(", ");
  };
  const classOf = (letter, kept) => letter === "g" ? (kept === "-" ? "x" : "g") : letter === "f" ? "f" : letter === "-" ? "o" : "u";
  const strip = (row) => {
    if (!row.days) return null;
    const paths = { g: "", x: "", u: "", f: "", o: "" };
    for (let at = 0; at < DAYS; at += 1) {
      const kind = classOf(row.days[at], row.kept ? row.kept[at] : "-");
      // a good day is tall, a doubtful one half of that, a failed one hangs from the top, and a day without anything is a dot
      const [y, tall] = { g: [2, 18], x: [2, 18], u: [11, 9], f: [2, 9], o: [18, 2] }[kind];
      paths[kind] += `M${at * 2} ${y}h1.4v${tall}h-1.4z`;
    }
    const chart = draw("svg", { class: "days", viewBox: "0 0 180 22", preserveAspectRatio: "none", role: "img", "aria-label": `Last 90 days: ${daySum(row)}` });
    for (const [kind, path] of Object.entries(paths)) if (path) chart.append(draw("path", { class: kind, d: path }));
    return chart;
  };
  const dayOf = (at) => new Date(Date.parse(`${data.day}T00:00:00Z`) - (DAYS - 1 - at) * 86400000);
  const cell = (kind, x, y, size, title) => {
    const box = kind === "x" ? { x: x + 0.5, y: y + 0.5, width: size - 1, height: size - 1 } : { x, y, width: size, height: size };
    const sign = { u: `M${x + 3} ${y + size / 2}h${size - 6}`, f: `M${x + 4} ${y + 4}l${size - 8} ${size - 8}m0 ${8 - size}l${8 - size} ${size - 8}` }[kind];
    const small = kind === "o" ? { x: x + size / 2 - 2, y: y + size / 2 - 2, width: 4, height: 4 } : box;
    return [draw("rect", { class: kind, rx: 2, ...small }, title ? draw("title", {}, title) : null), sign ? draw("path", { class: "sign", d: sign }) : null];
  };
  const calendar = (row) => {
    const shift = (dayOf(0).getUTCDay() + 6) % 7, weeks = Math.ceil((shift + DAYS) / 7), pitch = 17;
    const chart = draw("svg", { class: "calendar", viewBox: `0 0 ${26 + weeks * pitch} ${16 + 7 * pitch}`, role: "img", "aria-label": `Calendar of the last 90 days: ${daySum(row)}` });
    ["Mon", "", "Wed", "", "Fri", "", "Sun"].forEach((word, at) => word && chart.append(draw("text", { x: 0, y: 27 + at * pitch }, word)));
    for (let at = 0; at < DAYS; at += 1) {
      const date = dayOf(at), week = Math.floor((shift + at) / 7), weekday = (shift + at) % 7;
      if (date.getUTCDate() === 1) chart.append(draw("text", { x: 26 + week * pitch, y: 10 }, date.toLocaleDateString("en", { month: "short", timeZone: "UTC" })));
      const kept = row.kept ? row.kept[at] : "-";
      const gone = row.days[at] !== "-" && row.days[at] !== "f" && kept === "-" ? ", deleted since" : "";
      const title = `${date.toISOString().slice(0, 10)}: ${WORDS[row.days[at]]}${gone}`;
      for (const part of cell(classOf(row.days[at], kept), 26 + week * pitch, 16 + weekday * pitch, 14, title)) if (part) chart.append(part);
    }
    return chart;
  };
  const LEGEND = [["g", "good backup"], ["x", "good backup, deleted since by retention"], ["u", "only an unstable, suspect, incomplete or damaged one"], ["f", "only failed runs"], ["o", "nothing known"]];
  const legend = () => make("ul", { class: "legend" }, LEGEND.map(([kind, word]) =>
    make("li", {}, draw("svg", { viewBox: "0 0 14 14", "aria-hidden": "true" }, ...cell(kind, 0, 0, 14)), word)));

  // ---- parts of a row

  const state = (row) => make("span", { class: `state ${row.kind}` }, draw("svg", { class: "mark", "aria-hidden": "true" }, draw("use", { href: `#m-${row.kind}` })), row.word);
  const against = (age, most, missed, none) => most === null ? span(age) : [age === null ? none : span(age), make("span", { class: missed ? "of bad" : "of" }, ` ${missed && age !== null ? ">" : "of"} ${limit(most)}`)];
  const misses = (row, name) => (row.missed || []).includes(name);
  const until = (row) => row.next === null ? "–" : row.next <= data.made ? "now" : `in ${span(row.next - data.made)}`;
  const link = (row, text) => make("button", { type: "button", class: "link", "aria-haspopup": "dialog", onclick: () => openHost(row.host) }, text);

  // ---- columns

  const COLUMNS = [
    ["State", (row) => row.at, (row) => state(row), "state-cell"],
    ["Host", (row) => row.hostName, (row) => link(row, row.hostName), "name-cell"],
    ["Workload", (row) => row.name, (row) => row.name || "–", "name-cell"],
    ["Newest", (row) => row.newest, (row) => against(row.newest, row.rpo, misses(row, "rpo"), "none"), "n"],
    ["Next", (row) => row.next, until, "n"],
    ["Proved", (row) => row.proved, (row) => against(row.proved, row.drill, misses(row, "drill_every"), "never"), "n"],
    ["Copied", (row) => row.copied, (row) => against(row.copied, row.copy, misses(row, "copy_within"), "none"), "n"],
    ["Size", (row) => row.size, (row) => row.size === null ? "–" : make("span", { class: "cell" }, spark(row.sizes, false, `Sizes of the last ${counted((row.sizes || "").length, "backup")}`), bytes(row.size)), "n"],
    ["New", (row) => row.fresh, (row) => row.fresh === null ? "–" : make("span", { class: "cell" }, spark(row.news, true, `New content of the last ${counted((row.news || "").length, "backup")}`), bytes(row.fresh)), "n"],
    ["90 days", (row) => row.days === null ? null : [...row.days].filter((letter) => letter === "f" || letter === "s").length, (row) => strip(row) || "–", "days-cell"],
  ];
  const line = (row, at) => make("tr", { role: "row", "aria-rowindex": at + 2 }, COLUMNS.map(([label, , show, kind]) => {
    const content = show(row);
    if (label === "Host") return make("th", { scope: "row", role: "rowheader", class: kind }, content);
    return make("td", { role: "cell", class: content === "–" ? `${kind} nil` : kind, "data-label": label === "State" ? null : label }, content);
  }));

  // ---- the table

  let shown = rows, drawn = 0, sorted = 0, descending = false;
  const app = document.getElementById("app");
  const field = (label, element) => make("label", {}, label, element);
  const box = () => make("input", { type: "search", autocomplete: "off", spellcheck: "false", oninput: () => refresh() });
  const text = box(), host = box(), workload = box();
  const counts = new Map();
  for (const row of rows) counts.set(row.word, (counts.get(row.word) || 0) + 1);
  const bad = rows.filter((row) => row.trouble).length;
  const which = make("select", { onchange: () => refresh() },
    make("option", { value: "" }, `All (${rows.length})`), make("option", { value: "!" }, `Problems (${bad})`),
    [...counts].map(([word, number]) => make("option", { value: `=${word}` }, `${word} (${number})`)));
  const clear = make("button", { type: "button", class: "plainly", onclick: () => { text.value = host.value = workload.value = ""; which.value = ""; refresh(); text.focus(); } }, "Clear");
  const told = make("p", { class: "count", role: "status" });
  const body = make("tbody", { role: "rowgroup" });
  const heads = COLUMNS.map(([label], at) => make("th", { scope: "col", role: "columnheader" }, make("button", { type: "button", onclick: () => sort(at) }, label)));
  const table = make("table", { role: "table", "aria-labelledby": "all" }, make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, heads)), body);
  const empty = make("p", { class: "empty" });
  const more = make("button", { type: "button", class: "plainly more", onclick: () => extend(CHUNK * 5) });

  const sort = (at) => {
    descending = at === sorted ? !descending : false;
    sorted = at;
    refresh();
  };
  const ordered = (found) => {
    const key = COLUMNS[sorted][1], sign = descending ? -1 : 1;
    return found.map((row) => [key(row), row]).sort(([one, first], [other, second]) => {
      if (one === null || other === null) return (one === null) - (other === null) || first.at - second.at; // what is not known comes last
      return sign * (one < other ? -1 : one > other ? 1 : 0) || first.at - second.at;
    }).map(([, row]) => row);
  };
  const refresh = () => {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const [wantedHost, wantedWorkload, wanted] = [host.value.trim().toLowerCase(), workload.value.trim().toLowerCase(), which.value];
    shown = ordered(rows.filter((row) =>
      (!wanted || (wanted === "!" ? row.trouble : row.word === wanted.slice(1)))
      && (!wantedHost || row.hostName.toLowerCase().includes(wantedHost))
      && (!wantedWorkload || row.name.toLowerCase().includes(wantedWorkload))
      && words.every((word) => row.hay.includes(word))));
    heads.forEach((head, at) => at === sorted ? head.setAttribute("aria-sort", descending ? "descending" : "ascending") : head.removeAttribute("aria-sort"));
    body.replaceChildren();
    drawn = 0;
    extend(CHUNK);
    told.textContent = shown.length === rows.length ? counted(rows.length, "row") : `${shown.length.toLocaleString("en")} of ${counted(rows.length, "row")}`;
    empty.textContent = rows.length ? "No row matches." : "There are no hosts.";
    empty.hidden = shown.length > 0;
    table.hidden = !shown.length;
  };
  const extend = (number) => {
    body.append(...shown.slice(drawn, drawn + number).map((row, at) => line(row, drawn + at)));
    drawn = Math.min(drawn + number, shown.length);
    table.setAttribute("aria-rowcount", shown.length + 1);
    more.hidden = drawn >= shown.length;
    more.textContent = `Show more (${(shown.length - drawn).toLocaleString("en")} left)`;
  };

  // ---- a host

  const dialog = document.getElementById("host");
  const fact = (name, value) => value === "–" || value === null ? null : make("div", {}, make("dt", {}, name), make("dd", {}, value));
  const dated = (age) => age === null ? "–" : `${span(age)} ago, ${moment(data.made - age)}`;
  const allowed = (text, most, name) => most === null ? text : `${text} (${name} is ${limit(most)})`;
  const one = (row) => make("section", { class: "one" },
    make("h3", {}, row.name || "Host", state(row)),
    row.reason ? make("p", {}, row.reason) : null,
    row.trouble && row.advice ? make("p", { class: "advice" }, row.advice) : null,
    row.workload === null || row.newest === null && row.every === null && row.count === null ? null : make("dl", {},
      fact("Newest good backup", allowed(row.newest === null ? "none" : dated(row.newest), row.rpo, "volt_rpo")), fact("Id", row.newest_id), fact("Last successful run", moment(row.success)), fact("Last failed run", moment(row.failure)),
      fact("Failures since the last success", row.failures || null), fact("Next run", row.next === null ? "–" : `${until(row)}, ${moment(row.next)}`), fact("Schedule", every(row)),
      fact("Last proved", row.proved === null && row.every === null ? "–" : allowed(row.proved === null ? "never" : dated(row.proved), row.drill, "volt_drill_every")),
      fact("Newest backup with a copy", allowed(row.copied === null ? "none" : dated(row.copied), row.copy, "volt_copy_within")),
      fact("Backups", row.count === null ? "–" : `${row.count}${row.damaged ? `, ${row.damaged} damaged` : ""}`), fact("Source", row.source),
      fact("Size", row.size === null ? "–" : make("span", { class: "cell" }, spark(row.sizes, false, "Sizes of the last backups"), bytes(row.size))),
      fact("New content", row.fresh === null ? "–" : make("span", { class: "cell" }, spark(row.news, true, "New content of the last backups"), bytes(row.fresh)))),
    row.days ? make("div", { class: "past" }, calendar(row), legend()) : null,
    row.days ? badDays(row) : null);
  const badDays = (row) => {
    const found = [...row.days].map((letter, at) => [letter, at]).filter(([letter]) => "usf".includes(letter)).reverse();
    if (!found.length) return null;
    const named = found.slice(0, 10).map(([letter, at]) => `${dayOf(at).toISOString().slice(0, 10)} ${WORDS[letter]}`).join(", ");
    return make("p", { class: "note" }, `Days without a good backup that is stable: ${named}${found.length > 10 ? ` and ${found.length - 10} more` : ""}.`);
  };
  const openHost = (number) => {
    const own = rows.filter((row) => row.host === number);
    const close = make("button", { type: "button", class: "plainly", onclick: () => dialog.close() }, "Close");
    dialog.replaceChildren(make("div", { class: "top" }, make("h2", { id: "host-name" }, data.hosts[number] ?? ""), close), ...own.slice(0, 200).map(one),
      own.length > 200 ? make("p", {}, `${own.length - 200} more are in the table.`) : "");
    dialog.showModal();
    dialog.scrollTop = 0;
  };
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

  // ---- begin

  app.append(make("div", { class: "tools", role: "search" }, field("Search", text), field("Host", host), field("Workload", workload), field("State", which), clear), told,
    make("div", { class: "frame" }, table, empty), more);
  refresh();
  for (const item of document.querySelectorAll("#problems li")) {
    const row = rows[Number(item.dataset.row)], name = item.querySelector(".name");
    name.replaceWith(link(row, row.hostName));
  }
  new IntersectionObserver((entries) => { if (entries.some((entry) => entry.isIntersecting) && drawn < shown.length) extend(CHUNK); }, { rootMargin: "800px" }).observe(more);
  window.addEventListener("beforeprint", () => extend(Math.max(0, PRINTED - drawn)));
  const old = Date.now() / 1000 - data.made;
  document.getElementById("made").append(` (${span(Math.max(0, old))} ago)`);
  if (old > 86400) {
    const notice = document.getElementById("old");
    notice.textContent = `This page is ${span(old)} old. Run the playbook volt.backup.status again to see the state of today.`;
    notice.hidden = false;
  }
})();
