// Runs before the page is drawn, so that the chosen theme never flashes: the only script that is no module.
{
  let chosen = null;
  try {
    chosen = localStorage.getItem("polymodal-theme");
  } catch {
    chosen = null; // storage is switched off: follow the system
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
}
