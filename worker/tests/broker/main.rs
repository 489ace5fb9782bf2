//! Tests against a real RabbitMQ, named by `DROVER_TEST_HUB_URI`.

mod connect;
mod surroundings;
