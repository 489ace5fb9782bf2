//! Window queries on real streams and a real PostgreSQL, named by `DROVER_TEST_HUB_URI` and `DROVER_TEST_STORE_URI`.

mod cases;
mod crew;
mod kills;
mod live;
mod load;
mod offline;
mod poison;
mod process;
mod revisions;
mod surroundings;
mod time;

#[path = "../services/reach.rs"]
mod reach;
#[path = "../services/variables.rs"]
mod variables;
