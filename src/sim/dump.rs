//! A small but genuine database dump: `<database>/<collection>.bson` with its `.metadata.json`, as
//! one `.tgz`, as the files of `mongodump --gzip`, as a tar of these, or as `mongodump --archive
//! --gzip`, which `tar` and `mongorestore` understand. Pure: a function of the seed.

use std::io::{self, Write};

use bson::{DateTime, Document, doc, oid::ObjectId};
use crc_fast::{CrcAlgorithm, checksum};
use flate2::{Compression, write::GzEncoder};

use super::content::mix;

/// Orders in a dump of the smallest and of the largest seed.
const ORDERS: std::ops::Range<u64> = 6_000..14_000;

/// 2026-01-01T00:00:00Z, so that a dump does not depend on when it is made.
const NEW_YEAR_MS: i64 = 1_767_225_600_000;

/// The archive of `seed`: a `.tgz` of plain files.
pub(super) fn tgz(seed: u64) -> Vec<u8> {
    let write = || {
        let encoder = GzEncoder::new(Vec::new(), Compression::fast());
        let files = files(seed)?.into_iter();
        let files = files.map(|(name, data)| (format!("dump/{name}"), data));
        archive(encoder, files)?.finish()
    };
    write().expect(IN_MEMORY)
}

/// The files of `seed`, each compressed by itself, below a directory of their own.
pub(super) fn folder(seed: u64) -> Vec<(String, Vec<u8>)> {
    let write = || {
        let files = files(seed)?.into_iter().map(|(name, data)| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&data)?;
            Ok((format!("1544517027220146694/{name}.gz"), encoder.finish()?))
        });
        files.collect::<io::Result<Vec<_>>>()
    };
    write().expect(IN_MEMORY)
}

/// A tar of that folder.
pub(super) fn tar(seed: u64) -> Vec<u8> {
    archive(Vec::new(), folder(seed).into_iter()).expect(IN_MEMORY)
}

/// The same dump as one compressed archive of `mongodump` (mongo-tools, `common/archive`).
pub(super) fn mongodump(seed: u64) -> Vec<u8> {
    const MAGIC: [u8; 4] = [0x6d, 0xe2, 0x99, 0x81];
    /// Ends the list of collections, and each run of documents.
    const END: [u8; 4] = [0xff; 4];
    let write = || {
        let files = files(seed)?;
        let mut out = GzEncoder::new(Vec::new(), Compression::fast());
        let put = |out: &mut GzEncoder<Vec<u8>>, part: Document| {
            part.to_writer(out).map_err(io::Error::other)
        };
        out.write_all(&MAGIC)?;
        let tool = doc! {
            "concurrent_collections": 1, "version": "0.1", "server_version": "4.2.1",
            "tool_version": "100.7.0",
        };
        put(&mut out, tool)?;
        // Each collection has two files: its documents and its metadata.
        for pair in files.chunks_exact(2) {
            let metadata = String::from_utf8_lossy(&pair[1].1).into_owned();
            let size = i32::try_from(pair[0].1.len()).unwrap_or(i32::MAX);
            let listed = doc! {
                "db": "shop", "collection": collection(&pair[0].0), "metadata": metadata,
                "size": size, "type": "collection",
            };
            put(&mut out, listed)?;
        }
        out.write_all(&END)?;
        for pair in files.chunks_exact(2) {
            let (name, data) = (collection(&pair[0].0), &pair[0].1);
            let place = |end: bool, crc: i64| doc! {"db": "shop", "collection": name, "EOF": end, "CRC": crc};
            put(&mut out, place(false, 0))?;
            out.write_all(data)?;
            out.write_all(&END)?;
            let crc = checksum(CrcAlgorithm::Crc64Xz, data);
            put(&mut out, place(true, i64::from_le_bytes(crc.to_le_bytes())))?;
            out.write_all(&END)?;
        }
        out.finish()
    };
    write().expect(IN_MEMORY)
}

/// The collection that a file holds.
fn collection(path: &str) -> &str {
    path.trim_start_matches("shop/").trim_end_matches(".bson")
}

const IN_MEMORY: &str = "writing into memory does not fail";

/// The files of a dump of one database, by path.
fn files(seed: u64) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut draw = Draw(mix(seed));
    let count = ORDERS.start + draw.below(ORDERS.end - ORDERS.start);
    let mut files = Vec::new();
    let customers = (0..count / 8).map(|n| customer(n, &mut draw));
    add(&mut files, "customers", customers)?;
    let orders = (0..count).map(|n| order(n, count / 8, &mut draw));
    add(&mut files, "orders", orders)?;
    Ok(files)
}

fn add(
    files: &mut Vec<(String, Vec<u8>)>,
    collection: &str,
    documents: impl Iterator<Item = Document>,
) -> io::Result<()> {
    let mut data = Vec::new();
    for document in documents {
        document.to_writer(&mut data).map_err(io::Error::other)?;
    }
    let metadata = format!(
        r#"{{"indexes":[{{"v":{{"$numberInt":"2"}},"key":{{"_id":{{"$numberInt":"1"}}}},"name":"_id_"}}],"collectionName":"{collection}","type":"collection"}}"#
    );
    files.push((format!("shop/{collection}.bson"), data));
    files.push((format!("shop/{collection}.metadata.json"), metadata.into()));
    Ok(())
}

/// `files` as a tar, written into `to`.
fn archive<W: Write>(to: W, files: impl Iterator<Item = (String, Vec<u8>)>) -> io::Result<W> {
    let mut archive = tar::Builder::new(to);
    for (name, data) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(data.len() as u64);
        header.set_mode(0o600);
        header.set_mtime((NEW_YEAR_MS / 1000) as u64);
        archive.append_data(&mut header, name, &data[..])?;
    }
    archive.into_inner()
}

fn customer(number: u64, draw: &mut Draw) -> Document {
    const TOWNS: [&str; 6] = ["Lisboa", "Łódź", "München", "東京", "Montréal", "Zürich"];
    doc! {
        "_id": number as i64,
        "name": format!("{:08x} {:08x}", draw.word() >> 32, draw.word() >> 32),
        "town": TOWNS[draw.below(6) as usize],
        "since": DateTime::from_millis(NEW_YEAR_MS - draw.below(1 << 37) as i64),
        "newsletter": draw.below(2) == 0,
    }
}

fn order(number: u64, customers: u64, draw: &mut Draw) -> Document {
    let placed = NEW_YEAR_MS - draw.below(31_536_000_000) as i64;
    let mut id = [0; 12];
    id[..4].copy_from_slice(&((placed / 1000) as u32).to_be_bytes());
    id[4..].copy_from_slice(&number.to_be_bytes());
    let items: Vec<Document> = (0..=draw.below(4))
        .map(|_| {
            doc! {
                "sku": format!("{:016x}", draw.word()),
                "quantity": 1 + draw.below(9) as i32,
                "price": draw.below(100_000) as f64 / 100.0,
            }
        })
        .collect();
    doc! {
        "_id": ObjectId::from_bytes(id),
        "customer": draw.below(customers) as i64,
        "placed": DateTime::from_millis(placed),
        "items": items,
        "note": if draw.below(5) == 0 { Some(format!("{:032x}", draw.word())) } else { None },
    }
}

/// Numbers that look random.
struct Draw(u64);

impl Draw {
    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.word() % end
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn an_archive_of_mongodump_has_its_parts() {
        let mut plain = Vec::new();
        let packed = mongodump(3);
        GzDecoder::new(&packed[..]).read_to_end(&mut plain).unwrap();
        let mut rest = plain.strip_prefix(&[0x6d, 0xe2, 0x99, 0x81]).unwrap();
        let mut runs = vec![Vec::new()];
        while !rest.is_empty() {
            match rest.strip_prefix(&[0xff; 4]) {
                Some(after) => {
                    rest = after;
                    runs.push(Vec::new());
                }
                None => runs
                    .last_mut()
                    .unwrap()
                    .push(Document::from_reader(&mut rest).unwrap()),
            }
        }
        let [list, customers, end, orders, last, nothing] = &runs[..] else {
            panic!("{} runs", runs.len());
        };
        assert_eq!(list.len(), 3, "the tool and two collections");
        assert!(customers.len() > 1 && orders.len() > ORDERS.start as usize);
        for (run, collection, over) in [
            (customers, "customers", false),
            (end, "customers", true),
            (orders, "orders", false),
            (last, "orders", true),
        ] {
            assert_eq!(run[0].get_str("collection").unwrap(), collection);
            assert_eq!(run[0].get_bool("EOF").unwrap(), over);
        }
        assert_ne!(end[0].get_i64("CRC").unwrap(), 0);
        assert!(nothing.is_empty());
    }

    #[test]
    fn the_archive_unpacks_to_whole_documents() {
        let bytes = tgz(3);
        assert_eq!(bytes, tgz(3), "a function of the seed");
        let mut archive = tar::Archive::new(GzDecoder::new(&bytes[..]));
        let mut documents = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut data = Vec::new();
            entry.read_to_end(&mut data).unwrap();
            if path.ends_with(".bson") {
                let mut rest = &data[..];
                let mut count = 0;
                while !rest.is_empty() {
                    Document::from_reader(&mut rest).unwrap();
                    count += 1;
                }
                documents.push((path, count));
            } else {
                serde_json::from_slice::<serde_json::Value>(&data).unwrap();
            }
        }
        assert_eq!(documents[0].0, "dump/shop/customers.bson");
        assert_eq!(documents[1].0, "dump/shop/orders.bson");
        assert!(documents[1].1 >= ORDERS.start, "{documents:?}");
    }
}
