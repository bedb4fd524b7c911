// The theme that was chosen last, before anything is drawn.
try {
  const chosen = localStorage.getItem("rockledge-theme");
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
} catch {
  // Storage can be turned off; then the system's theme it is.
}
