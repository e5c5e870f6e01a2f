//! A small but genuine database dump: `<database>/<collection>.bson` with its `.metadata.json`, as
//! one `.tgz`, as the files of `mongodump --gzip`, or as a tar of these, which `tar` and
//! `mongorestore` understand. Pure: a function of the seed.

use std::io::{self, Write};

use bson::{DateTime, Document, doc, oid::ObjectId};
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
