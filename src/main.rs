//! hivevpn
fn main() {}
