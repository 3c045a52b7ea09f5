//! Fleets against a real broker.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops, and says where")]

/// A test for each broker, from an asynchronous function that takes which.
macro_rules! on_both_brokers {
    ($($test:ident),+ $(,)?) => {
        mod rabbitmq {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                muster_pki::tls::install_crypto_provider();
                super::$test(muster_fleet::BrokerKind::RabbitMq).await;
            })+
        }

        mod embedded {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                muster_pki::tls::install_crypto_provider();
                super::$test(muster_fleet::BrokerKind::Embedded).await;
            })+
        }
    };
}

mod fleet;
mod idle;
mod raw;
mod storm;
