//! Writes the table's packets, and the same as frames, where the fuzz targets look for their corpus.

#[path = "../tests/corpus/mod.rs"]
mod corpus;

use std::path::Path;

use wigwag::wire::mqtt::Version;
use wigwag::wire::ws::{self, Opcode};

fn main() -> std::io::Result<()> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let (packets, frames) = (home.join("mqtt_decode"), home.join("ws_deframe"));
    std::fs::create_dir_all(&packets)?;
    std::fs::create_dir_all(&frames)?;
    for (number, row) in corpus::rows().iter().enumerate().filter(|(_, row)| row.bytes.len() < 4000) {
        let version = u8::from(row.version == Version::V5);
        std::fs::write(packets.join(format!("{number:03}")), [&[version], &row.bytes[..]].concat())?;
        let mut stream = vec![number as u8 & !1]; // a server, and pieces of some size
        ws::frame(&mut stream, Opcode::Binary, &row.bytes, Some([number as u8, 2, 3, 4]));
        std::fs::write(frames.join(format!("{number:03}")), stream)?;
    }
    Ok(())
}
