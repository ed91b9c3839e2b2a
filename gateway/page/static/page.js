// Refreshes the sections of the page by a stream of events, for as long as the page is looked at.
'use strict';
(() => {
  const live = document.getElementById('live');
  const waiting = new Map(); // sections that are not shown yet, because text in them is selected
  const chosen = new Map(); // details that a person has opened or closed, by id
  const tail = document.title.slice(document.title.lastIndexOf(' - '));
  let source = null;
  let timer = 0;
  let at = live.textContent.replace('As of ', '');

  function say(text, state) {
    live.textContent = text;
    live.className = `live ${state}`;
  }

  function isSelected(element) {
    const selection = getSelection();
    return selection !== null && !selection.isCollapsed && selection.containsNode(element, true);
  }

  function focusable(element) {
    return [...element.querySelectorAll('a, summary')];
  }

  function show(id, html) {
    const element = document.getElementById(id);
    if (element === null) return;
    if (isSelected(element)) {
      waiting.set(id, html);
      return;
    }
    waiting.delete(id);
    const focused = focusable(element).indexOf(document.activeElement);
    element.innerHTML = html; // made by this gateway, where every name is escaped
    for (const details of element.querySelectorAll('details')) {
      if (chosen.has(details.id)) details.open = chosen.get(details.id);
    }
    if (focused >= 0) focusable(element)[focused]?.focus({ preventScroll: true });
  }

  function later(seconds, then) {
    clearTimeout(timer);
    timer = setTimeout(then, seconds * 1000);
  }

  function lost() {
    close();
    say(`Not live: no word from the gateway since ${at}. Trying again.`, 'lost');
    later(5, open);
  }

  function open() {
    close();
    source = new EventSource(`events${location.search}`);
    source.addEventListener('section', (event) => {
      const { id, html } = JSON.parse(event.data);
      show(id, html);
    });
    source.addEventListener('now', (event) => {
      const now = JSON.parse(event.data);
      at = now.at;
      document.title = now.title + tail;
      for (const [id, html] of [...waiting]) show(id, html);
      say(waiting.size ? `Live at ${at}; what you have selected stays` : `Live at ${at}`, 'live-on');
      later(now.next + 15, lost);
    });
    source.onerror = lost;
    later(20, lost);
  }

  function close() {
    clearTimeout(timer);
    source?.close();
    source = null;
  }

  document.addEventListener('click', (event) => {
    const summary = event.target.closest('summary');
    if (summary !== null) chosen.set(summary.parentElement.id, !summary.parentElement.open);
    const link = event.target.closest('a[href^="#route-"]');
    if (link === null) return;
    const details = document.getElementById(decodeURIComponent(link.hash.slice(1)));
    if (details !== null) {
      details.open = true;
      chosen.set(details.id, true);
    }
  });
  document.addEventListener('visibilitychange', () => {
    if (document.hidden) {
      close();
      say(`Paused at ${at}`, 'paused');
    } else {
      open();
    }
  });
  addEventListener('pagehide', close);
  addEventListener('pageshow', (event) => {
    if (event.persisted && !document.hidden) open();
  });
  if (!document.hidden) open();
})();
