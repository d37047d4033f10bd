// What the voice told, before anything was invented.

const at = (id) => document.getElementById(id);
const percent = (share) => `${Math.round(100 * share)} %`;

export function showEvidence(evidence) {
  const { sex, age, warnings, speech_seconds: seconds } = evidence;
  const { male_probability: male, age_probabilities: ages } = evidence;
  at("sex-mark").style.setProperty("--at", male);
  at("sex-text").textContent = `sounds ${sex}, ${percent(Math.max(male, 1 - male))}`;
  at("ages").replaceChildren(
    ...Object.entries(ages).map(([decade, share]) => {
      const bar = document.createElement("span");
      bar.style.setProperty("--height", share / ages[age]);
      bar.classList.toggle("is-likeliest", decade === age);
      bar.dataset.from = decade.match(/\d+/)[0];
      return bar;
    }),
  );
  at("age-text").textContent = `about ${age.replace("-", " to ")}, ${percent(ages[age])}`;
  at("speech-text").textContent = `${seconds.toFixed(1)} s, pauses left out`;
  at("warnings").replaceChildren(
    ...warnings.map((text) => Object.assign(document.createElement("li"), { textContent: text })),
  );
  at("told").hidden = false;
}
