// Without this script all images stand below each other and the browser shows what an outline is after a while.
const tip = document.body.appendChild(Object.assign(document.createElement("div"), { id: "tip", hidden: true }));
for (const title of document.querySelectorAll(".picture g > title")) {
  title.parentNode.dataset.tip = title.textContent;
  title.remove();
}
document.addEventListener("pointermove", (event) => {
  const cell = event.target.closest ? event.target.closest("[data-tip]") : null;
  tip.hidden = !cell;
  if (!cell) return;
  tip.textContent = cell.dataset.tip;
  tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${Math.min(event.clientY + 16, innerHeight - tip.offsetHeight - 8)}px`;
});
for (const viewer of document.querySelectorAll(".viewer")) {
  const buttons = [...viewer.querySelectorAll(".strip button")];
  const cases = [...viewer.querySelectorAll(".case")];
  const select = (index) => {
    cases.forEach((figure, i) => figure.classList.toggle("current", i === index));
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", i === index));
    viewer.dataset.index = index;
  };
  buttons.forEach((button, i) => button.addEventListener("click", () => select(i)));
  viewer.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    select((Number(viewer.dataset.index) + step + cases.length) % cases.length);
    buttons[viewer.dataset.index].focus();
    event.preventDefault();
  });
  for (const box of viewer.querySelectorAll(".layers input"))
    box.addEventListener("change", () => viewer.classList.toggle(`no-${box.value}`, !box.checked));
  viewer.classList.add("interactive");
  if (cases.length) select(0);
}
