//! Connections that break, and bytes, lengths and checksums that are wrong.

use std::fs;

use super::server::{Hub, Reply, Request, etag};
use super::{WEIGHTS, cache, downloads, files, honest, infill, partial, repo, works};
use crate::fails;

/// A Hub that answers the requests for a file's bytes in its own way.
fn hub_with(file: &'static str, change: fn(&Request, Reply) -> Reply) -> Hub {
    Hub::start(files(), move |request, reply| {
        // A redirect has no bytes.
        let is_file = request.gets(file) && reply.status != 302;
        if is_file {
            change(request, reply)
        } else {
            reply
        }
    })
}

#[test]
fn a_broken_connection_is_taken_up_where_it_broke() {
    let hub = hub_with(WEIGHTS, |request, mut reply| {
        reply.cut = (request.nth == 0).then_some(1000);
        reply
    });
    let cache = cache();
    works(infill(&hub, &cache, "org/name"));
    let requests = hub.cdn_log();
    let ranges: Vec<_> = requests.iter().map(|seen| seen.header("range")).collect();
    assert_eq!(ranges, [None, Some("bytes=1000-")]);
    let sent: usize = requests.iter().map(|seen| seen.sent).sum();
    assert_eq!(sent, files()[WEIGHTS].len(), "nothing is sent twice");
}

#[test]
fn another_run_goes_on_where_the_first_gave_up() {
    let cache = cache();
    let breaking = hub_with(WEIGHTS, |request, mut reply| {
        reply.cut = Some(if request.nth == 0 { 1000 } else { 0 });
        reply
    });
    let size = files()[WEIGHTS].len();
    let there = format!("1000 of {size} bytes");
    let parts = [WEIGHTS, &there, "run the same command again"];
    fails(&mut infill(&breaking, &cache, "org/name"), 1, &parts);
    let kept = fs::read(partial(&cache, WEIGHTS)).expect("a partial file");
    assert_eq!(kept, files()[WEIGHTS][..1000]);
    assert_eq!(breaking.cdn_log().len(), 5, "five failures in a row");

    let hub = honest();
    works(infill(&hub, &cache, "org/name"));
    assert!(!partial(&cache, WEIGHTS).exists());
    assert_eq!(hub.cdn_log()[0].header("range"), Some("bytes=1000-"));
    assert_eq!(
        downloads(&hub)
            .iter()
            .filter(|seen| seen.gets(WEIGHTS))
            .count(),
        2
    );
    assert!(!downloads(&hub).iter().any(|seen| seen.gets("config.json")));
}

#[test]
fn a_server_that_ignores_ranges_sends_all_again() {
    let hub = hub_with(WEIGHTS, |request, mut reply| {
        if request.nth == 0 {
            reply.cut = Some(1000);
        } else {
            reply = Reply::new(200, files()[WEIGHTS].clone());
        }
        reply
    });
    works(infill(&hub, &cache(), "org/name"));
    assert_eq!(hub.cdn_log()[1].header("range"), Some("bytes=1000-"));

    // One that breaks at the same place each time does not go on forever.
    let hub = hub_with(WEIGHTS, |_, _| Reply {
        cut: Some(1000),
        ..Reply::new(200, files()[WEIGHTS].clone())
    });
    let parts = ["run the same command again"];
    fails(&mut infill(&hub, &cache(), "org/name"), 1, &parts);
}

#[test]
fn a_partial_file_of_something_else_is_found_out() {
    let (hub, cache) = (honest(), cache());
    let path = partial(&cache, WEIGHTS);
    fs::create_dir_all(path.parent().expect("a folder")).expect("a writable folder");
    fs::write(&path, "something else").expect("a writable folder");
    fails(
        &mut infill(&hub, &cache, "org/name"),
        1,
        &[WEIGHTS, "checksum"],
    );
    assert!(!path.exists());
    works(infill(&hub, &cache, "org/name"));
}

#[test]
fn wrong_bytes_are_not_kept() {
    fn spoiled(_: &Request, mut reply: Reply) -> Reply {
        reply.body[20] ^= 1;
        reply
    }
    for file in [WEIGHTS, "config.json"] {
        let (hub, cache) = (hub_with(file, spoiled), cache());
        let right = etag(file, &files()[file]);
        let mut bytes = files()[file].clone();
        bytes[20] ^= 1;
        let wrong = etag(file, &bytes);
        let parts = [file, "checksum", &right, &wrong];
        fails(&mut infill(&hub, &cache, "org/name"), 1, &parts);
        assert!(!partial(&cache, file).exists());
        assert!(!repo(&cache).join("blobs").join(right).exists());
        assert!(!repo(&cache).join("refs/main").exists());
    }
}

/// An answer that lies about the length, and what is said about it.
#[track_caller]
fn check_length(change: fn(&Request, Reply) -> Reply, parts: &[&str]) {
    let (hub, cache) = (hub_with(WEIGHTS, change), cache());
    let parts = [&[WEIGHTS], parts].concat();
    fails(&mut infill(&hub, &cache, "org/name"), 1, &parts);
    let size = files()[WEIGHTS].len() as u64;
    let kept = fs::metadata(partial(&cache, WEIGHTS)).map_or(0, |file| file.len());
    assert!(kept <= size, "{kept} of {size} bytes");
    let blobs = fs::read_dir(repo(&cache).join("blobs")).expect("a folder");
    assert!(
        blobs
            .flatten()
            .all(|file| file.metadata().expect("a file").len() <= size)
    );
}

#[test]
fn lengths_that_do_not_match_are_errors() {
    // Fewer bytes than announced, and fewer than there are.
    check_length(
        |_, reply| Reply {
            cut: Some(0),
            ..reply
        },
        &["connection", "run the same command again"],
    );
    check_length(
        |_, reply| Reply {
            length: None,
            cut: Some(0),
            ..reply
        },
        &["ended early", "run the same command again"],
    );
    // More bytes, announced or not.
    fn longer(_: &Request, mut reply: Reply) -> Reply {
        reply.body.resize(1 << 20, 0);
        reply.length = Some(reply.body.len());
        reply
    }
    check_length(longer, &["announces 1048576 bytes"]);
    check_length(
        |request, reply| Reply {
            length: None,
            ..longer(request, reply)
        },
        &["more than the", "bytes of the file"],
    );
    // Right bytes under a wrong length.
    check_length(
        |_, reply| Reply {
            length: Some(usize::MAX / 2),
            ..reply
        },
        &["announces"],
    );
    check_length(
        |_, reply| Reply {
            length: Some(10),
            ..reply
        },
        &["announces 10 bytes"],
    );
    // Another range than the one that was asked for.
    check_length(
        |request, reply| match request.nth {
            0 => Reply {
                cut: Some(1000),
                ..reply
            },
            _ => reply.lying("Content-Range", "bytes 0-10/11"),
        },
        &["bytes 0-10/11", "bytes 1000-"],
    );
}

#[test]
fn a_size_that_the_endpoint_made_up_is_an_error() {
    for (size, part) in [
        ("10", "announces"),
        ("many", "how large"),
        ("-1", "how large"),
    ] {
        let hub = Hub::start(files(), move |request, reply| match reply.status {
            302 if request.path.ends_with(WEIGHTS) => reply.lying("X-Linked-Size", size),
            _ => reply,
        });
        fails(&mut infill(&hub, &cache(), "org/name"), 1, &[WEIGHTS, part]);
    }
}

#[test]
fn an_etag_that_is_no_checksum_is_refused() {
    for etag in ["", "\"abc\"", "\"../../../../etc/passwd\"", "W/\"123\""] {
        let hub = Hub::start(files(), move |request, reply| {
            match request.path.ends_with("config.json") {
                true => reply.lying("ETag", etag),
                false => reply,
            }
        });
        let parts = ["config.json", "no checksum"];
        fails(&mut infill(&hub, &cache(), "org/name"), 1, &parts);
    }
}

#[test]
fn a_busy_server_is_asked_again() {
    let hub = Hub::start(files(), |request, reply| {
        let is_lookup = request.path.starts_with("/api/");
        if request.nth == 0 && !is_lookup {
            Reply::new(503, "busy")
        } else {
            reply
        }
    });
    works(infill(&hub, &cache(), "org/name"));
}
