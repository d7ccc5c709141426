//! A small client of the crate: attaches a network namespace to a network, and the reverse.
//!
//! `attach add|del|check <conflist> <cache directory> <container id> <netns>`, where a namespace is made by
//! `attach create <netns>` and removed by `attach remove <netns>`; `attach list <cache directory>`.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use cni::{Attachment, Network, Runtime, netns};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["create", path] => netns::create(path.as_ref())?,
        ["remove", path] => netns::remove(path.as_ref())?,
        ["list", cache] => {
            for entry in runtime(cache).cached()? {
                println!("{} {} {}", entry.network_name, entry.container_id, entry.if_name);
            }
        }
        [verb, conflist, cache, id, path] => {
            let network = Network::parse(&fs::read(conflist)?)?;
            let mut pod = Attachment::for_pod(id, "default", id, "");
            pod.netns = Some(PathBuf::from(path)).filter(|path| path.exists());
            let (runtime, deadline) = (runtime(cache), runtime(cache).deadline());
            match verb {
                "add" => println!("{}", runtime.add(&network, &pod, &deadline)?.raw),
                "del" => runtime.del(&network, &pod, &deadline)?,
                "check" => runtime.check(&network, &pod, &deadline)?,
                _ => return Err(format!("{verb} is none of the verbs").into()),
            }
        }
        _ => return Err("usage: attach add|del|check|create|remove|list ...".into()),
    }
    Ok(())
}

fn runtime(cache: &str) -> Runtime {
    Runtime { cache_dir: cache.into(), ..Runtime::default() }
}
