// Says in one line how the cluster is, from /ready.
const WORDS = {
  pass: "Everything is up",
  warn: "Serving, with something missing",
  fail: "Not ready",
};

async function showReadiness() {
  const line = document.getElementById("status");
  const text = document.getElementById("status-text");
  try {
    const response = await fetch("/ready", { signal: AbortSignal.timeout(5000) });
    const { status, checks = {} } = await response.json();
    const state = WORDS[status] ? status : "fail";
    const unwell = Object.keys(checks).filter((name) => checks[name].status !== "pass");
    line.dataset.state = state;
    text.textContent = unwell.length > 0 ? `${WORDS[state]}: ${unwell.join(", ")}` : WORDS[state];
  } catch {
    line.dataset.state = "fail";
    text.textContent = "No replica answers";
  }
}

showReadiness();
