//! Window queries on real streams and a real PostgreSQL, named by `DROVER_TEST_HUB_URI` and `DROVER_TEST_STORE_URI`.

mod cases;
mod offline;
mod surroundings;
