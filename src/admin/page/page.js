"use strict";
(() => {
  const PAUSE = 2000;
  const LONGEST_PAUSE = 15000;
  let sorting = null;
  let lost = 0;

  // Elements <details> that a person opened or closed. An update leaves them alone.
  const chosen = new WeakSet();

  const text = (cell) => cell.dataset.value ?? cell.textContent.trim().toLowerCase();

  function compare(a, b) {
    const numbers = [Number(a), Number(b)];
    return numbers.some(Number.isNaN) || a === "" || b === "" ? a.localeCompare(b) : numbers[0] - numbers[1];
  }

  // Sorts and filters the client table of a page, current or new, as the user chose.
  function arrange(page, wanted) {
    const table = page.getElementById("clients");
    if (!table) return;
    const input = page.getElementById("filter");
    input.closest("p").hidden = false;
    input.setAttribute("value", wanted);
    const headings = [...table.tHead.rows[0].cells];
    const rows = [...table.tBodies[0].rows];
    const column = sorting ? headings.findIndex((heading) => heading.firstElementChild.id === sorting.by) : -1;
    headings.forEach((heading, at) => {
      if (at === column) heading.setAttribute("aria-sort", sorting.down ? "descending" : "ascending");
      else heading.removeAttribute("aria-sort");
    });
    if (column >= 0) {
      rows.sort((a, b) => compare(text(a.cells[column]), text(b.cells[column])) * (sorting.down ? -1 : 1));
      table.tBodies[0].append(...rows);
    }
    const words = wanted.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      row.hidden = words !== "" && !row.textContent.toLowerCase().includes(words);
      shown += row.hidden ? 0 : 1;
    }
    page.getElementById("shown").textContent = words === "" ? "" : `${shown} of ${rows.length} shown`;
  }

  // Adds the local time to each time, which is in UTC as in the log.
  function localise(page) {
    for (const time of page.querySelectorAll("time")) time.title = new Date(time.dateTime).toLocaleString();
  }

  const wanted = () => document.getElementById("filter")?.value ?? "";

  const policy = (page) => page.querySelector("meta[name=policy]")?.content;

  function take(markup) {
    const next = new DOMParser().parseFromString(markup, "text/html");
    if (!policy(next)) throw new Error("not a status page");
    // A pontoon of another version has another script.
    if (policy(next) !== policy(document)) return location.reload();
    arrange(next, wanted());
    localise(next);
    document.title = next.title;
    Idiomorph.morph(document.body, next.body, {
      ignoreActiveValue: true,
      callbacks: {
        beforeAttributeUpdated: (name, node) => !(name === "open" && chosen.has(node)),
      },
    });
  }

  async function update() {
    try {
      const answer = await fetch(location.pathname, { cache: "no-store", signal: AbortSignal.timeout(10000) });
      if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
      take(await answer.text());
      lost = 0;
    } catch {
      lost += 1;
      const link = document.getElementById("link");
      const words = "No answer from pontoon: this page is out of date.";
      if (lost > 1 && link.textContent !== words) link.textContent = words;
    }
    setTimeout(next, Math.min(PAUSE * 2 ** Math.min(lost, 3), LONGEST_PAUSE));
  }

  // Do not update a hidden page.
  function next() {
    if (document.hidden) document.addEventListener("visibilitychange", next, { once: true });
    else update();
  }

  document.addEventListener("DOMContentLoaded", () => {
    arrange(document, "");
    localise(document);
    document.addEventListener("input", (event) => {
      if (event.target.id === "filter") arrange(document, wanted());
    });
    // The event "toggle" does not bubble. It also follows an update, after which `open` is as the page wants it.
    document.addEventListener("toggle", ({ target }) => {
      if (target.open === (target.dataset.open === "true")) chosen.delete(target);
      else chosen.add(target);
    }, true);
    document.addEventListener("click", (event) => {
      const button = event.target.closest("th button");
      if (!button) return;
      sorting = { by: button.id, down: sorting?.by === button.id ? !sorting.down : false };
      arrange(document, wanted());
    });
    setTimeout(next, PAUSE);
  });
})();
