//! Embeds the remedies anew when a data file is added: `include_dir!` alone notices only changes to files that it knows.
fn main() {
    println!("cargo:rerun-if-changed=src/remedy/targets");
}
