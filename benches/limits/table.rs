//! Prints measured values next to their limits.

/// Prints one line of the table: the name, the measured value, and its limit.
pub fn row(what: &str, measured: f64, limit: f64, unit: &str) {
    let (state, digits) = (if measured <= limit { "ok" } else { "OVER" }, if limit < 0.1 { 4 } else { 2 });
    println!("{what:<66} {measured:>8.digits$} {unit:<5} limit {limit:>8.digits$}  {state}");
}
