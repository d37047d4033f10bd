// The four frames: unfinished pictures, then portraits to choose from.

const FURTHEST_BLUR = 9; // pixels, where nothing but noise would be seen

export class Faces {
  constructor(count) {
    this.group = document.getElementById("faces");
    this.download = document.getElementById("download");
    this.text = document.getElementById("chosen-text");
    this.invitation = this.text.textContent;
    const template = document.getElementById("face");
    this.cards = Array.from({ length: count }, (_, k) => {
      const card = template.content.firstElementChild.cloneNode(true);
      card.querySelector("input").addEventListener("change", () => this.choose(k));
      this.group.append(card);
      return card;
    });
    this.addresses = [];
    this.clear();
  }

  clear() {
    this.addresses.forEach((address) => URL.revokeObjectURL(address));
    this.addresses = [];
    this.portraits = [];
    this.group.style.setProperty("--blur", `${FURTHEST_BLUR}px`);
    this.text.textContent = this.invitation;
    this.download.removeAttribute("href");
    this.download.setAttribute("aria-disabled", "true");
    for (const card of this.cards) {
      const [radio, image, caption] = parts(card);
      radio.checked = false;
      radio.disabled = radio.hidden = true; // nameless until it is drawn
      image.removeAttribute("src");
      image.alt = "";
      caption.textContent = "";
      card.classList.remove("is-drawn");
    }
  }

  preview(pictures, progress) {
    this.group.style.setProperty("--blur", `${FURTHEST_BLUR * (1 - progress)}px`);
    pictures.forEach((picture, k) => {
      parts(this.cards[k])[1].src = picture;
    });
  }

  show(portraits) {
    this.portraits = portraits;
    this.group.style.setProperty("--blur", "0px");
    portraits.forEach(({ seed, png }, k) => {
      const [radio, image, caption] = parts(this.cards[k]);
      this.addresses.push(URL.createObjectURL(blobOf(png)));
      image.src = this.addresses[k];
      image.alt = `Synthetic portrait ${k + 1} of ${portraits.length}, seed ${seed}`;
      caption.textContent = `seed ${seed}`;
      radio.disabled = radio.hidden = false;
      this.cards[k].classList.add("is-drawn");
    });
  }

  choose(k) {
    const { seed } = this.portraits[k];
    this.text.textContent = `You chose seed ${seed}.`;
    this.download.href = this.addresses[k];
    this.download.download = `portrait-${seed}.png`;
    this.download.removeAttribute("aria-disabled");
  }
}

function parts(card) {
  return ["input", "img", ".caption"].map((selector) => card.querySelector(selector));
}

function blobOf(address) {
  const [head, data] = address.split(",");
  const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  return new Blob([bytes], { type: head.slice("data:".length, head.indexOf(";")) });
}
