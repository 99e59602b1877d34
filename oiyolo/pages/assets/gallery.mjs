// Galleries: filters, a search by ImageID, and a viewer with zoom.

const ZOOM = 1.25;
const MAX_ZOOM = 8;
const FIRST = 24; // pictures that are shown at once, until more are asked for

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

class Viewer {
  constructor() {
    this.title = element("p", { className: "title" });
    this.stage = element("div", { className: "stage", tabIndex: 0 });
    this.stage.setAttribute("aria-label", "Picture");
    this.below = element("div", { className: "below facts" });
    this.kinds = element("span", { className: "kinds" });
    const button = (text, name, act) => {
      const made = element("button", { type: "button", title: name, onclick: act }, text);
      made.setAttribute("aria-label", name);
      return made;
    };
    const bar = element("div", { className: "bar" }, this.title, this.kinds,
      button("\u2212", "Zoom out", () => this.zoomBy(1 / ZOOM)),
      button("+", "Zoom in", () => this.zoomBy(ZOOM)),
      button("\u2190", "Previous image", () => this.step(-1)),
      button("\u2192", "Next image", () => this.step(1)),
      button("\u2715", "Close", () => this.dialog.close()));
    this.dialog = element("dialog", {}, bar, this.stage, this.below);
    this.dialog.setAttribute("aria-label", "Image viewer");
    document.body.append(this.dialog);
    this.dialog.addEventListener("keydown", (event) => this.onKey(event));
    this.dialog.addEventListener("close", () => {
      this.reveal(); // the last picture may be beyond those that the page shows
      this.opener.focus();
    });
    this.stage.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoomBy(event.deltaY < 0 ? ZOOM : 1 / ZOOM);
    }, { passive: false });
    window.addEventListener("resize", () => this.dialog.open && this.resize());
    this.makeDraggable();
  }

  // Show one of some items, through which the arrow keys lead.
  open(items, index, kinds, reveal) {
    [this.items, this.index, this.reveal] = [items, index, () => reveal(this.index)];
    this.opener = items[index].querySelector("button.picture");
    this.kinds.replaceChildren(...[...kinds].map(([kind, name]) => this.makeToggle(kind, name)));
    if (!this.dialog.open) this.dialog.showModal();
    this.stage.focus();
    this.show();
  }

  makeToggle(kind, name) {
    const box = element("input", { type: "checkbox", checked: !this.stage.classList.contains(`hide-${kind}`) });
    box.addEventListener("change", () => this.stage.classList.toggle(`hide-${kind}`, !box.checked));
    return element("label", {}, box, name);
  }

  show() {
    const item = this.items[this.index];
    this.opener = item.querySelector("button.picture");
    this.dialog.current = item; // for scripts of the page
    const picture = element("div", { className: "picture" });
    picture.append(...[...this.opener.children].map((child) => child.cloneNode(true)));
    picture.querySelector("img").loading = "eager";
    this.stage.replaceChildren(picture);
    this.moveLabelsInside(picture.querySelector("svg"));
    const caption = item.querySelector(".caption").textContent;
    this.title.textContent = `${item.dataset.id}: ${caption} (${this.index + 1} of ${this.items.length})`;
    this.below.replaceChildren(...item.querySelector(".facts").cloneNode(true).childNodes);
    this.zoom = 1;
    this.resize();
  }

  // A long label of a box at the right edge would be cut off.
  moveLabelsInside(drawing) {
    const { width } = drawing.viewBox.baseVal;
    for (const label of drawing.querySelectorAll("text")) {
      const excess = label.getBBox().x + label.getBBox().width - width;
      if (excess > 0) label.setAttribute("x", Math.max(0, label.getAttribute("x") - excess));
    }
  }

  step(by) {
    this.index = (this.index + by + this.items.length) % this.items.length;
    this.show();
  }

  zoomBy(factor) {
    this.zoom = Math.min(MAX_ZOOM, Math.max(1, this.zoom * factor));
    this.resize();
  }

  // The picture fits the stage at zoom 1; the centre of what is shown stays where it is.
  resize() {
    const [stage, drawing] = [this.stage, this.stage.querySelector("svg")];
    const centre = [
      (stage.scrollLeft + stage.clientWidth / 2) / stage.scrollWidth,
      (stage.scrollTop + stage.clientHeight / 2) / stage.scrollHeight,
    ];
    const { width, height } = drawing.viewBox.baseVal;
    const scale = Math.min(stage.clientWidth / width, stage.clientHeight / height) * this.zoom;
    const picture = drawing.parentElement;
    picture.style.width = `${Math.floor(width * scale)}px`;
    picture.style.height = `${Math.floor(height * scale)}px`;
    stage.scrollLeft = centre[0] * stage.scrollWidth - stage.clientWidth / 2;
    stage.scrollTop = centre[1] * stage.scrollHeight - stage.clientHeight / 2;
  }

  makeDraggable() {
    let last = null;
    this.stage.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "mouse") last = [event.clientX, event.clientY];
    });
    window.addEventListener("pointerup", () => { last = null; });
    this.stage.addEventListener("pointermove", (event) => {
      if (!last) return;
      event.preventDefault();
      this.stage.scrollLeft -= event.clientX - last[0];
      this.stage.scrollTop -= event.clientY - last[1];
      last = [event.clientX, event.clientY];
    });
  }

  onKey(event) {
    const acts = {
      ArrowLeft: () => this.step(-1), ArrowRight: () => this.step(1),
      "+": () => this.zoomBy(ZOOM), "-": () => this.zoomBy(1 / ZOOM), 0: () => this.zoomBy(0),
    };
    const act = acts[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  }
}

let viewer = null;

for (const gallery of document.querySelectorAll(".gallery")) {
  const items = [...gallery.querySelectorAll(".item")];
  const tags = new Map(items.map((item) => [item, new Set(JSON.parse(item.dataset.tags))]));
  const form = gallery.querySelector(".filters");
  const kinds = new Map([...gallery.querySelectorAll(".legend .key")].map(
    (key) => [key.querySelector("g").classList[1], key.textContent.trim()]));
  const more = gallery.querySelector(".more");
  let matching = items;
  let limit = FIRST;
  const update = () => {
    const wanted = [...form.querySelectorAll("select")].map((select) => select.value).filter(Boolean);
    const text = form.elements.search.value.trim().toLowerCase();
    matching = items.filter((item) => wanted.every((tag) => tags.get(item).has(tag))
      && item.dataset.id.toLowerCase().includes(text));
    const shown = new Set(matching.slice(0, limit));
    for (const item of items) item.hidden = !shown.has(item);
    form.querySelector(".count").textContent = `${matching.length} of ${items.length} ${items.length === 1 ? "image" : "images"}`;
    gallery.querySelector(".nothing").hidden = matching.length > 0;
    more.hidden = matching.length <= limit;
    more.textContent = `Show all ${matching.length} images`;
  };
  more.addEventListener("click", () => {
    const next = matching[limit];
    limit = items.length;
    update();
    next.querySelector("button.picture").focus();
  });
  form.hidden = false;
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  update();
  for (const item of items) {
    item.querySelector("button.picture").addEventListener("click", () => {
      viewer ??= new Viewer();
      viewer.open(matching, matching.indexOf(item), kinds, (index) => {
        limit = Math.max(limit, index + 1);
        update();
      });
    });
  }
}
