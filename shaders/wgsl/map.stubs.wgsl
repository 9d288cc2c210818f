const COUNT: u32 = 5u;
const WG: u32 = 64u;
const GROUPS_X: u32 = 1u;

// Computes and stores element `i` < COUNT.
fn element(i: u32) {}
