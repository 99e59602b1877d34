// Decisions about suspected label errors, by button or key, which the server saves at once.
(() => {
  const { token, rows } = JSON.parse(document.getElementById("saving").textContent);
  const KEYS = { k: "keep", d: "drop", a: "add", r: "replace", x: "drop_image", u: "" };
  const NAMES = { keep: "Keep", drop: "Drop", add: "Add", replace: "Replace", drop_image: "Drop image", "": "Undo" };
  const status = document.getElementById("saved");
  const items = [...document.querySelectorAll(".item")];

  function show(item, decision) {
    item.dataset.decision = decision;
    for (const button of item.querySelectorAll(".decide button")) {
      button.setAttribute("aria-pressed", String(button.value === decision && decision !== ""));
    }
    const decided = items.filter((other) => other.dataset.decision).length;
    status.textContent = `${decided} of ${items.length} decided`;
  }

  async function save(item, decision) {
    const row = items.indexOf(item);
    if (decision !== "" && !rows[row][0].includes(decision)) return false;
    const response = await fetch("decision", {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Token": token },
      body: JSON.stringify({ row, decision }),
    }).catch(() => null);
    if (!response || !response.ok) {
      status.textContent = response ? await response.text() : "Not saved: the server has ended";
      return false;
    }
    show(item, decision);
    return true;
  }

  items.forEach((item, row) => {
    const bar = document.createElement("p");
    bar.className = "decide";
    for (const decision of [...rows[row][0], ""]) {
      const key = Object.keys(KEYS).find((name) => KEYS[name] === decision);
      const button = document.createElement("button");
      Object.assign(button, { type: "button", value: decision, textContent: `${NAMES[decision]} (${key})` });
      button.addEventListener("click", () => save(item, decision));
      bar.append(button);
    }
    item.querySelector(".caption").after(bar);
    show(item, rows[row][1]);
  });

  document.addEventListener("keydown", async (event) => {
    if (!(event.key in KEYS) || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input, select, textarea")) return;
    const dialog = document.querySelector("dialog[open]");
    const item = dialog ? dialog.current : document.activeElement.closest(".item");
    if (!item) return;
    event.preventDefault();
    const isSaved = await save(item, KEYS[event.key]);
    if (isSaved && dialog && event.key !== "u") {
      dialog.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
    }
  });
})();
