//! Parquet files: `logs/project=P/logstore=L/date=YYYY-MM-DD/hour=HH/NUMBER.parquet`, hive-style, by hours of `__time__` in UTC.
use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{Array as _, RecordBatch},
    error::ArrowError,
};
use bytes::Bytes;
use flowlog_model::field::Field;
use object_store::{
    ObjectStore, ObjectStoreExt as _, local::LocalFileSystem, path::Path as ObjectPath,
};
use parquet::{
    arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions},
    basic::{Compression, Encoding, ZstdLevel},
    errors::ParquetError,
    file::properties::{EnabledStatistics, WriterProperties, WriterVersion},
    schema::types::ColumnPath,
};

use super::{
    StoreError, durable,
    maintenance::blocking,
    manifest::DataFile,
    order::Keys,
    schema::{SEQUENCE, column_name, schema},
};
use crate::log_service::types::LogstoreKey;

/// Rows in a page at most: what a search that finds one row must decode.
const PAGE_ROWS: usize = 8192;
/// Rows in a row group at most. Dictionaries are written anew for each.
const GROUP_ROWS: usize = 1 << 20;
/// How often a bloom filter says yes wrongly.
const BLOOM_FALSE_POSITIVES: f64 = 0.01;

/// What a merge leaves free of the disk, in octets.
const SPARE_OCTETS: u64 = 16 << 20;

/// Where the files are.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) objects: Arc<dyn ObjectStore>,
    /// The folder, which has to be flushed to the disk: a local object store does not do that.
    folder: PathBuf,
}

/// A file that is not written yet.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) octets: Bytes,
    /// All but `path` and `made`.
    pub(super) file: DataFile,
}

impl Files {
    pub(super) fn open(folder: PathBuf) -> Result<Self, StoreError> {
        durable::make_folder(&folder)
            .map_err(|error| StoreError::io("cannot make", &folder, error))?;
        let objects = LocalFileSystem::new_with_prefix(&folder)?.with_automatic_cleanup(true);
        Ok(Self {
            objects: Arc::new(objects),
            folder,
        })
    }

    /// Writes a file, and waits until it is on the disk.
    pub(super) async fn write(&self, path: &ObjectPath, octets: Bytes) -> Result<(), StoreError> {
        self.objects.put(path, octets.into()).await?;
        let (path, top) = (self.folder.join(path.as_ref()), self.folder.clone());
        blocking(move || {
            let sync = || -> io::Result<()> {
                File::open(&path)?.sync_all()?;
                // The folders of the hour and of the date may be new as well.
                path.ancestors()
                    .skip(1)
                    .take_while(|folder| folder.starts_with(&top))
                    .try_for_each(|folder| File::open(folder)?.sync_all())
            };
            sync().map_err(|error| StoreError::io("cannot write", &path, error))
        })
        .await
    }

    pub(super) async fn read(&self, file: &DataFile) -> Result<Bytes, StoreError> {
        Ok(self.objects.get(&file.path).await?.bytes().await?)
    }

    /// Whether there is room for files of so many octets, and some more.
    pub(super) fn has_room(&self, octets: u64) -> bool {
        durable::free_octets(&self.folder)
            .is_ok_and(|free| free > octets.saturating_add(SPARE_OCTETS))
    }

    /// Removes all but these, also what a write has left that was not finished; gives which of these are there.
    pub(super) fn keep(
        &self,
        named: &HashSet<ObjectPath>,
    ) -> Result<HashSet<ObjectPath>, StoreError> {
        let mut found = HashSet::new();
        self.sweep(&self.folder, named, &mut found)
            .map_err(|error| StoreError::io("cannot look through", &self.folder, error))?;
        Ok(found)
    }

    fn sweep(
        &self,
        folder: &Path,
        named: &HashSet<ObjectPath>,
        found: &mut HashSet<ObjectPath>,
    ) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                self.sweep(&path, named, found)?;
                // It stays if there is something in it.
                let _ = fs::remove_dir(&path);
                continue;
            }
            let object = path
                .strip_prefix(&self.folder)
                .ok()
                .and_then(|path| ObjectPath::parse(path.to_str()?).ok())
                .filter(|object| named.contains(object));
            match object {
                Some(object) => {
                    found.insert(object);
                }
                None => durable::remove(&path)?,
            }
        }
        Ok(())
    }

    /// Removes a file, if it is there.
    pub(super) async fn remove(&self, path: &ObjectPath) -> Result<(), StoreError> {
        match self.objects.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Where a file belongs.
pub(super) fn path(key: &LogstoreKey, hour: u32, number: u64) -> ObjectPath {
    let date = time::OffsetDateTime::from_unix_timestamp(i64::from(hour) * 3600)
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    ObjectPath::from_iter([
        format!("project={}", key.project),
        format!("logstore={}", key.logstore),
        format!(
            "date={:04}-{:02}-{:02}",
            date.year(),
            u8::from(date.month()),
            date.day()
        ),
        format!("hour={:02}", date.hour()),
        format!("{number:012}.parquet"),
    ])
}

fn properties(rows: usize) -> WriterProperties {
    let column = |field: Field| ColumnPath::from(column_name(field));
    let mut properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by("Flowlog".into())
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_statistics_enabled(EnabledStatistics::Page)
        // Each differs from the last by 1, as a rule.
        .set_column_dictionary_enabled(ColumnPath::from(SEQUENCE), false)
        .set_column_encoding(ColumnPath::from(SEQUENCE), Encoding::DELTA_BINARY_PACKED);
    for field in [Field::Packets, Field::Bytes] {
        // Where there are too many values for a dictionary.
        properties = properties.set_column_encoding(column(field), Encoding::DELTA_BINARY_PACKED);
    }
    for field in [Field::SrcAddr, Field::DstAddr] {
        // Whose addresses are anywhere in a file, so that statistics do not tell.
        properties = properties
            .set_column_encoding(column(field), Encoding::DELTA_BYTE_ARRAY)
            .set_column_bloom_filter_enabled(column(field), true)
            .set_column_bloom_filter_fpp(column(field), BLOOM_FALSE_POSITIVES)
            // It is made that large, and folded to what the values need.
            .set_column_bloom_filter_max_ndv(column(field), rows.clamp(1, GROUP_ROWS) as u64);
    }
    properties.build()
}

/// Makes a file of rows that come in its order.
pub(super) struct Encoder {
    writer: ArrowWriter<Vec<u8>>,
    file: DataFile,
}

impl Encoder {
    /// For so many rows of an hour, or fewer.
    pub(super) fn new(hour: u32, rows: usize) -> Result<Self, ParquetError> {
        let options = ArrowWriterOptions::new().with_properties(properties(rows));
        Ok(Self {
            writer: ArrowWriter::try_new_with_options(Vec::new(), schema(), options)?,
            file: DataFile {
                path: ObjectPath::default(),
                octets: 0,
                rows: 0,
                hour,
                min_time: u32::MAX,
                max_time: 0,
                min_sequence: u64::MAX,
                max_sequence: 0,
                made: 0,
                memory_octets: 0,
            },
        })
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), ParquetError> {
        let keys = Keys::of(batch)?;
        for row in 0..keys.len() {
            let time = u32::try_from(keys.time(row)).map_err(|_| outside("__time__"))?;
            let sequence = u64::try_from(keys.sequence(row)).map_err(|_| outside(SEQUENCE))?;
            self.file.min_time = self.file.min_time.min(time);
            self.file.max_time = self.file.max_time.max(time);
            self.file.min_sequence = self.file.min_sequence.min(sequence);
            self.file.max_sequence = self.file.max_sequence.max(sequence);
        }
        self.file.rows += batch.num_rows() as u64;
        for column in batch.columns() {
            self.file.memory_octets += column.to_data().get_slice_memory_size()? as u64;
        }
        self.writer.write(batch)
    }

    pub(super) fn finish(self) -> Result<Encoded, ParquetError> {
        let octets = Bytes::from(self.writer.into_inner()?);
        let mut file = self.file;
        file.octets = octets.len() as u64;
        Ok(Encoded { octets, file })
    }
}

fn outside(column: &str) -> ArrowError {
    ArrowError::InvalidArgumentError(format!("{column} is outside its range"))
}
