//! The sink of a running action.

use muster_plugin_api::{OutputPiece, OutputSink};
use muster_protocol::OutputStream;

#[tokio::test]
async fn pieces_arrive_in_order_and_a_full_sink_makes_the_writer_wait() {
    let (sink, mut receiver) = OutputSink::channel(1);
    sink.write(OutputStream::Stdout, Vec::new()).await;
    sink.write(OutputStream::Stdout, b"one".to_vec()).await;
    {
        let second = sink.write(OutputStream::Stderr, b"two".to_vec());
        tokio::pin!(second);
        tokio::select! {
            biased;
            () = &mut second => panic!("there was no room"),
            () = std::future::ready(()) => {}
        }
        let first = OutputPiece { stream: OutputStream::Stdout, bytes: b"one".to_vec() };
        assert_eq!(receiver.recv().await, Some(first));
        second.await;
    }
    drop(sink);
    let second = OutputPiece { stream: OutputStream::Stderr, bytes: b"two".to_vec() };
    assert_eq!(receiver.recv().await, Some(second));
    assert_eq!(receiver.recv().await, None);
}

#[tokio::test]
async fn nobody_reading_does_not_stop_the_writer() {
    let (sink, receiver) = OutputSink::channel(1);
    drop(receiver);
    for _ in 0..3 {
        sink.write(OutputStream::Stdout, b"x".to_vec()).await;
    }
    OutputSink::discard().write(OutputStream::Stdout, b"x".to_vec()).await;
}
