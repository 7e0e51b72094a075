//! A way to a server that takes time, or breaks: a TCP proxy on a free port, on a thread of its own.
#![allow(dead_code, reason = "each test program uses its own part of this")]

use std::{
    io,
    net::TcpListener as StdListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    time::Instant,
};

/// No cut is due.
const NEVER: i64 = i64::MAX;

pub(crate) struct Proxy {
    /// Where it listens, on 127.0.0.1.
    pub(crate) port: u16,
    shared: Arc<Shared>,
    cut: watch::Sender<()>,
}

struct Shared {
    to: u16,
    /// Each way.
    delay: Duration,
    chaos: Mutex<Option<Chaos>>,
    cuts: AtomicU64,
    connections: AtomicU64,
}

struct Chaos {
    dice: u64,
    percent: u64,
}

impl Chaos {
    fn roll(&mut self, sides: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % sides
    }
}

impl Proxy {
    pub(crate) fn start(to: u16) -> Self {
        Self::delayed(to, Duration::ZERO)
    }

    /// Every byte takes so long, each way; how many are on their way does not matter.
    pub(crate) fn delayed(to: u16, delay: Duration) -> Self {
        let listener = StdListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        listener.set_nonblocking(true).expect("a listener that does not block");
        let shared = Arc::new(Shared {
            to,
            delay,
            chaos: Mutex::default(),
            cuts: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        });
        let (cut, when_cut) = watch::channel(());
        let serving = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("proxy".into())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(serve(listener, serving, when_cut));
            })
            .expect("a thread");
        Self { port, shared, cut }
    }

    /// From now on so many of a hundred commands meet a connection that ends at some byte of theirs, or of what is
    /// answered. `None` ends that.
    pub(crate) fn chaos(&self, seed: u64, percent: impl Into<Option<u64>>) {
        let dice = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        *self.shared.chaos.lock().expect("no panic under it") = percent.into().map(|percent| Chaos { dice, percent });
    }

    /// Ends every connection that is open.
    pub(crate) fn cut_all(&self) {
        self.cut.send_replace(());
    }

    /// How many connections chaos has ended.
    pub(crate) fn cuts(&self) -> u64 {
        self.shared.cuts.load(SeqCst)
    }

    /// How many connections there have been.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(SeqCst)
    }
}

async fn serve(listener: StdListener, shared: Arc<Shared>, when_cut: watch::Receiver<()>) {
    let listener = TcpListener::from_std(listener).expect("a listener");
    loop {
        // The proxy's other end goes when the proxy does, and takes the thread with it.
        let mut gone = when_cut.clone();
        let client = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => client,
                Err(_) => continue,
            },
            () = async { while gone.changed().await.is_ok() {} } => return,
        };
        shared.connections.fetch_add(1, SeqCst);
        let (shared, mut cut) = (Arc::clone(&shared), when_cut.clone());
        cut.mark_unchanged();
        tokio::spawn(async move {
            tokio::select! {
                // However it ends, both ends are dropped.
                _ = carry(client, &shared) => {}
                _ = cut.changed() => {}
            }
        });
    }
}

async fn carry(client: TcpStream, shared: &Shared) -> io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", shared.to)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // Bytes of answers that may still pass.
    let fuse = AtomicI64::new(NEVER);
    tokio::try_join!(
        pipe(from_client, to_server, shared.delay, |piece| up(piece, shared, &fuse)),
        pipe(from_server, to_client, shared.delay, |piece| down(piece, shared, &fuse)),
    )?;
    Ok(())
}

/// How much of a piece passes; less than all is the end.
fn up(piece: &[u8], shared: &Shared, fuse: &AtomicI64) -> usize {
    let mut chaos = shared.chaos.lock().expect("no panic under it");
    let Some(chaos) = &mut *chaos else { return piece.len() };
    // The end of a stream is no piece of it.
    if piece.is_empty() || chaos.roll(100) >= chaos.percent {
        return piece.len();
    }
    if chaos.roll(4) == 0 {
        shared.cuts.fetch_add(1, SeqCst);
        return chaos.roll(piece.len() as u64) as usize;
    }
    // Answers are short and long: any size is as likely as its double.
    let bits = chaos.roll(18);
    fuse.store((chaos.roll(1 << bits) + 1) as i64, SeqCst);
    piece.len()
}

fn down(piece: &[u8], shared: &Shared, fuse: &AtomicI64) -> usize {
    let left = fuse.load(SeqCst);
    if left == NEVER {
        return piece.len();
    }
    let length = piece.len() as i64;
    if left < length {
        shared.cuts.fetch_add(1, SeqCst);
        return left as usize;
    }
    fuse.store(left - length, SeqCst);
    piece.len()
}

async fn pipe(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    delay: Duration,
    passes: impl Fn(&[u8]) -> usize,
) -> io::Result<()> {
    let (send, mut receive) = mpsc::channel::<(Instant, Vec<u8>)>(4096);
    let reading = async move {
        let mut piece = vec![0; 64 * 1024];
        loop {
            let read = from.read(&mut piece).await?;
            let pass = passes(&piece[..read]);
            if pass > 0 && send.send((Instant::now() + delay, piece[..pass].to_vec())).await.is_err() {
                return Ok(());
            }
            if pass < read {
                return Err(io::Error::from(io::ErrorKind::ConnectionAborted));
            }
            if read == 0 {
                return Ok(());
            }
        }
    };
    let writing = async move {
        while let Some((due, piece)) = receive.recv().await {
            if !delay.is_zero() {
                tokio::time::sleep_until(due).await;
            }
            to.write_all(&piece).await?;
        }
        to.shutdown().await
    };
    // What passed before a cut may still be on its way, which is what happens to bytes in networks.
    tokio::try_join!(reading, writing).map(|_| ())
}
