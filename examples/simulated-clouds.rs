//! The simulated clouds of `demo`, on their own, for other programs to talk to.
//!
//! Prints one line of JSON with the address and the keys, then serves until its standard input
//! ends or Ctrl-C:
//!
//! ```console
//! $ cargo run --example simulated-clouds
//! {"base_url":"http://127.0.0.1:40123","public_key":"…","private_key":"…", …}
//! ```
//!
//! The bill is at `/_sim/bill`; faults are posted to `/_sim/faults`.

use std::io;

use mongo_backupfs::sim::{Sim, demo_clouds};
use tokio::sync::oneshot;

#[tokio::main]
async fn main() -> io::Result<()> {
    let sim = Sim::start(demo_clouds()).await?;
    println!("{}", sim.describe());
    tokio::select! {
        _ = end_of_input() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted,
    }
}

/// Ends with the standard input. A thread reads it, because such a read cannot be cancelled.
async fn end_of_input() {
    let (ended, end) = oneshot::channel();
    std::thread::spawn(move || {
        // Nothing is expected there; an input that cannot be read has ended too.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        let _ = ended.send(());
    });
    let _ = end.await;
}
