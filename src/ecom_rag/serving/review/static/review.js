// Keys, the time that is left, and giving an item back when its page is closed. The page works without all of this.
"use strict";
(() => {
  let busy = false; // a form is on its way: a key pressed twice answers one item, not the next one too
  let inside = false; // the person goes to another part of this page
  let ends = 0;
  let warned = false;

  const field = (node) => node instanceof Element && node.closest("input, textarea, select, [contenteditable]");
  const seeds = () => [...document.querySelectorAll(".seed")];

  function move(step) {
    const all = seeds();
    if (!all.length) return;
    const at = all.indexOf(document.activeElement && document.activeElement.closest(".seed"));
    const next = all[Math.min(all.length - 1, Math.max(0, at < 0 ? (step > 0 ? 0 : all.length - 1) : at + step))];
    next.focus();
    next.scrollIntoView({ block: "nearest" });
  }

  function help() {
    const sheet = document.getElementById("help");
    if (!sheet) return;
    sheet.open = !sheet.open;
    sheet.querySelector("summary").focus();
  }

  function press(key) {
    const target = [...document.querySelectorAll("[data-key]")].find((node) => node.dataset.key === key);
    if (target) target.click();
    return Boolean(target);
  }

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.isComposing || event.keyCode === 229 || event.repeat) return; // 229: an input method is at work
    const inField = field(event.target);
    if (event.key === "Escape") {
      const sheet = document.getElementById("help");
      if (inField) event.target.blur();
      else if (sheet) sheet.open = false;
      return;
    }
    if (event.key === "Enter" && event.target.id === "other") {
      event.preventDefault();
      document.querySelector("[name=do][value=other]").click();
      return;
    }
    if (inField || document.body.dataset.keys !== "on" || busy) return;
    let done = true;
    const wanted = [...document.querySelectorAll("[data-focus]")].find((node) => node.dataset.focus === event.key);
    if (wanted) wanted.focus();
    else if (event.key === "j") move(1);
    else if (event.key === "k") move(-1);
    else if (event.key === "?") help();
    else if (event.key === "Enter") {
      const note = document.getElementById("note");
      done = Boolean(note) && !event.target.closest("a, button, summary");
      if (done) note.focus();
    } else done = press(event.key);
    if (done) event.preventDefault();
  });

  const once = (event) => {
    if (busy) {
      event.preventDefault();
      event.stopImmediatePropagation();
    }
    busy = true;
    inside = true;
  };
  document.addEventListener("submit", once, true);
  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element && event.target.closest("a[href]");
    if (link && link.origin === location.origin && !link.hasAttribute("download")) inside = true;
  });

  function tick() {
    const left = document.getElementById("left");
    if (!left || !ends) return;
    const seconds = Math.max(0, Math.round((ends - performance.now()) / 1000));
    if (seconds > 0) {
      left.querySelector(".time").textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
      left.classList.toggle("soon", seconds < 60);
    } else {
      left.textContent = left.dataset.over;
      ends = 0;
    }
    if (seconds < 60 && !warned) {
      document.getElementById("soon").textContent = seconds ? left.dataset.soon : left.dataset.over;
      warned = Boolean(seconds);
    }
  }

  function begin() {
    busy = false;
    inside = false;
    warned = false;
    const left = document.getElementById("left");
    ends = left ? performance.now() + 1000 * Number(left.dataset.seconds) : 0;
    tick();
  }

  window.addEventListener("pagehide", () => {
    const form = document.getElementById("answer");
    if (inside || !form) return;
    const sent = new URLSearchParams();
    for (const name of ["decision", "lease", "view"]) sent.set(name, form.elements[name].value);
    navigator.sendBeacon("/review/leave", sent);
  });
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) location.reload();
  });
  document.addEventListener("htmx:afterSettle", () => {
    begin();
    const title = document.querySelector("h1");
    if (title && document.activeElement === document.body) title.focus({ preventScroll: true });
    scrollTo(0, 0);
  });
  for (const name of ["htmx:responseError", "htmx:sendError", "htmx:timeout"])
    document.addEventListener(name, () => { busy = false; });
  setInterval(tick, 1000);
  begin();
})();
