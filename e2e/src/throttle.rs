//! The world's registry through a narrow pipe: so many bytes of its answers are let through, and then none until
//! there may be more.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};

use crate::world::World;

const PIECE: usize = 16 << 10;

/// Serves at `127.0.0.1:<port>` of its world.
#[derive(Debug)]
pub struct Throttle<'w> {
    world: &'w World,
    to: SocketAddr,
    at: SocketAddr,
    listener: TcpListener,
    stop: AtomicBool,
    /// What clients keep for later is not waited for.
    clients: Mutex<Vec<TcpStream>>,
    left: Mutex<usize>,
    more: Condvar,
}

impl<'w> Throttle<'w> {
    pub fn new(world: &'w World, at: &str, to: &str) -> Self {
        let address = |text: &str| text.parse().expect("an address");
        let (at, to) = (address(at), address(to));
        let listener = world.listen(at).expect("the port is free");
        let (left, more, stop) = (Mutex::new(0), Condvar::new(), AtomicBool::new(false));
        let clients = Mutex::default();
        Self { world, to, at, listener, stop, clients, left, more }
    }

    /// Lets so many bytes more through, of whatever connections there are and will be.
    pub fn allow(&self, bytes: usize) {
        let mut left = self.left.lock().expect("no thread panics with it");
        *left = left.saturating_add(bytes);
        self.more.notify_all();
    }

    /// Serves while `work` is done.
    pub fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        struct End<'a>(&'a Throttle<'a>);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.stop();
            }
        }
        std::thread::scope(|scope| {
            // Also where `work` panics.
            let _end = End(self);
            scope.spawn(|| self.serve());
            work()
        })
    }

    fn serve(&self) {
        std::thread::scope(|scope| {
            while let Ok((client, _)) = self.listener.accept() {
                let mut clients = self.clients.lock().expect("no thread panics with it");
                if self.stop.load(Ordering::SeqCst) {
                    return;
                }
                clients.extend(client.try_clone());
                drop(clients);
                scope.spawn(move || self.connection(client));
            }
        });
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.allow(usize::MAX);
        drop(self.world.connect(self.at));
        for client in self.clients.lock().expect("no thread panics with it").drain(..) {
            let _ = client.shutdown(Shutdown::Both);
        }
    }

    fn connection(&self, client: TcpStream) {
        let Ok(registry) = self.world.connect(self.to) else { return };
        let sockets = (client.try_clone(), registry.try_clone());
        let (Ok(requests), Ok(registry_too)) = sockets else { return };
        std::thread::scope(|scope| {
            scope.spawn(|| copy(requests, registry_too, |_| ()));
            copy(registry, client, |count| self.take(count));
        });
    }

    /// Waits until so many bytes may go.
    fn take(&self, count: usize) {
        let left = self.left.lock().expect("no thread panics with it");
        let mut left =
            self.more.wait_while(left, |left| *left < count).expect("no thread panics with it");
        if *left != usize::MAX {
            *left -= count;
        }
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, wait: impl Fn(usize)) {
    let mut buffer = vec![0; PIECE];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        wait(count);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
