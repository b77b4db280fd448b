// Shows the dashboard anew every 10 seconds: fetches this page and exchanges its figures in place.
"use strict";
(() => {
  const EVERY_MS = 10000;
  const TIMEOUT_MS = 8000;
  const state = document.getElementById("state");

  function exchange(text) {
    const next = new DOMParser().parseFromString(text, "text/html").getElementById("live");
    const now = document.getElementById("live");
    if (!next || !now) throw new Error("not the dashboard");
    for (const open of now.querySelectorAll("details[open]")) {
      const same = open.id && next.querySelector("#" + CSS.escape(open.id));
      if (same) same.open = true;
    }
    const focused = now.contains(document.activeElement) ? document.activeElement.closest("details[id]") : null;
    now.replaceWith(document.adoptNode(next));
    const again = focused && document.getElementById(focused.id);
    if (again) again.querySelector("summary").focus();
  }

  async function refresh() {
    if (document.hidden) return;
    try {
      const answer = await fetch("/", {
        credentials: "same-origin",
        headers: { Accept: "text/html" },
        redirect: "manual",
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
      if (answer.type === "opaqueredirect" || answer.status === 401) {
        location.assign("/login");
        return;
      }
      if (!answer.ok) throw new Error("HTTP " + answer.status);
      exchange(await answer.text());
      if (state.textContent) state.textContent = "";
    } catch (error) {
      state.textContent = "The server does not answer; these figures are old.";
    }
  }

  setInterval(refresh, EVERY_MS);
  document.addEventListener("visibilitychange", refresh);
})();
