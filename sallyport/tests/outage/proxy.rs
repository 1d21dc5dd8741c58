//! The network between a gateway and a controller: it may lose what comes back, or everything.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It arrives.
    Passes,
    /// Questions arrive, answers do not.
    NoAnswers,
    /// Connections break, and there are no new ones.
    Cut,
}

/// A way to one controller.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    mode: watch::Sender<Mode>,
    open: watch::Receiver<usize>,
}

impl Proxy {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mode = watch::Sender::new(Mode::Passes);
        let modes = mode.subscribe();
        let count = watch::Sender::new(0);
        let open = count.subscribe();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if *modes.borrow() != Mode::Cut {
                    let (modes, count) = (modes.clone(), count.clone());
                    count.send_modify(|n| *n += 1);
                    tokio::spawn(async move {
                        carry(near, target, modes).await;
                        count.send_modify(|n| *n -= 1);
                    });
                }
            }
        });
        Self { address, mode, open }
    }

    /// Breaks all connections.
    pub(crate) async fn cut(&self) {
        self.set(Mode::Cut);
        self.open.clone().wait_for(|n| *n == 0).await.unwrap();
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn carry(near: TcpStream, target: SocketAddr, mut modes: watch::Receiver<Mode>) {
    let Ok(far) = TcpStream::connect(target).await else { return };
    let (mut near_in, mut near_out) = near.into_split();
    let (mut far_in, mut far_out) = far.into_split();
    let answers = modes.clone();
    let up = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(n @ 1..) = near_in.read(&mut buffer).await {
            if far_out.write_all(&buffer[..n]).await.is_err() {
                break;
            }
        }
    };
    let down = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(n @ 1..) = far_in.read(&mut buffer).await {
            // TLS does not survive a hole: a connection that lost an answer gets no later one either.
            if *answers.borrow() == Mode::NoAnswers {
                std::future::pending::<()>().await;
            }
            if near_out.write_all(&buffer[..n]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
        _ = modes.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}
