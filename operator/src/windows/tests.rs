mod claims;
mod model;
mod properties;
mod rendering;
mod sizing;
