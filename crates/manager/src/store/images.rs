//! Tables `images` and `image_files`.

use std::fmt;
use std::str::FromStr;

use sqlx::{AnyConnection, Connection as _, Executor as _, FromRow};

use super::Store;
use crate::error::{Error, Result};

/// An image without its files.
#[derive(Debug, Clone, FromRow)]
pub struct ImageRow {
    /// `img-…`.
    pub id: String,
    /// For people.
    pub name: String,
    /// For people.
    pub description: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// 1 for the image that a VM gets when it names none.
    pub is_default: i64,
}

/// What an image is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileKind {
    /// An ELF `vmlinux` or a bzImage.
    Kernel,
    /// An ext4 file system.
    Rootfs,
    /// A cpio archive of the kernel's modules; a kernel with everything built in needs none.
    Modules,
}

impl FileKind {
    /// The name in the database, and what the file's name in the image's directory begins with.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Rootfs => "rootfs",
            Self::Modules => "modules",
        }
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for FileKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Self::Kernel, Self::Rootfs, Self::Modules]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| Error::internal("the database holds an unknown kind of image file", text.to_owned()))
    }
}

/// One file of an image.
#[derive(Debug, Clone, FromRow)]
pub struct ImageFileRow {
    /// Whose file.
    pub image_id: String,
    /// See [`FileKind`].
    pub kind: String,
    /// Its name in the image's own directory, or where it was given in place.
    pub path: String,
    /// 1 for a file that was given in place and is not ours.
    pub in_place: i64,
    /// Its length.
    pub bytes: i64,
    /// Hexadecimal. Absent for a file that was given in place and may change there.
    pub sha256: Option<String>,
    /// Milliseconds since 1970.
    pub uploaded_at: i64,
}

impl Store {
    /// All images, oldest first.
    pub async fn images(&self) -> Result<Vec<ImageRow>> {
        Ok(sqlx::query_as("SELECT id, name, description, created_at, is_default FROM images ORDER BY created_at, id")
            .fetch_all(&self.pool)
            .await?)
    }

    /// One image.
    pub async fn image(&self, id: &str) -> Result<Option<ImageRow>> {
        Ok(sqlx::query_as("SELECT id, name, description, created_at, is_default FROM images WHERE id = $1")
            .bind(id)
            .fetch_optional(&self.pool)
            .await?)
    }

    /// The image that a VM gets when it names none.
    pub async fn default_image(&self) -> Result<Option<ImageRow>> {
        Ok(sqlx::query_as("SELECT id, name, description, created_at, is_default FROM images WHERE is_default = 1")
            .fetch_optional(&self.pool)
            .await?)
    }

    /// Adds an image, or gives an image that is there its name and description again.
    pub async fn put_image(&self, image: &ImageRow) -> Result<()> {
        sqlx::query(
            "INSERT INTO images (id, name, description, created_at, is_default) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (id) DO UPDATE SET name = excluded.name, description = excluded.description",
        )
        .bind(&image.id)
        .bind(&image.name)
        .bind(&image.description)
        .bind(image.created_at)
        .bind(image.is_default)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Makes an image the default. False if there is no such image.
    pub async fn set_default_image(&self, id: &str) -> Result<bool> {
        let mut transaction = self.begin().await?;
        sqlx::query("UPDATE images SET is_default = 0 WHERE is_default = 1").execute(&mut *transaction).await?;
        let set =
            sqlx::query("UPDATE images SET is_default = 1 WHERE id = $1").bind(id).execute(&mut *transaction).await?;
        if set.rows_affected() == 0 {
            return Ok(false);
        }
        transaction.commit().await?;
        Ok(true)
    }

    /// Removes an image and the rows of its files. False if there was none.
    pub async fn delete_image(&self, id: &str) -> Result<bool> {
        let gone = sqlx::query("DELETE FROM images WHERE id = $1").bind(id).execute(&self.pool).await?;
        Ok(gone.rows_affected() > 0)
    }

    /// The files of one image, or of all.
    pub async fn image_files(&self, image_id: Option<&str>) -> Result<Vec<ImageFileRow>> {
        Ok(sqlx::query_as(
            "SELECT image_id, kind, path, in_place, bytes, sha256, uploaded_at FROM image_files
             WHERE $1 IS NULL OR image_id = $1 ORDER BY image_id, kind",
        )
        .bind(image_id)
        .fetch_all(&self.pool)
        .await?)
    }

    /// How many images have both a kernel and a root filesystem.
    pub async fn complete_images(&self) -> Result<i64> {
        Ok(sqlx::query_scalar(
            "SELECT COUNT(*) FROM images
             WHERE EXISTS (SELECT 1 FROM image_files WHERE image_id = images.id AND kind = 'kernel')
               AND EXISTS (SELECT 1 FROM image_files WHERE image_id = images.id AND kind = 'rootfs')",
        )
        .fetch_one(&self.pool)
        .await?)
    }

    /// Records files of an image, all or none of them. What the rows named before may be removed then: not even a power cut
    /// brings these back.
    pub async fn put_image_files(&self, files: &[ImageFileRow]) -> Result<()> {
        let mut connection = self.pool.acquire().await?;
        let sqlite = connection.backend_name() == "SQLite";
        if sqlite {
            connection.execute("PRAGMA synchronous = FULL").await?;
        }
        let put = put_all(&mut connection, files).await;
        if sqlite {
            connection.execute("PRAGMA synchronous = NORMAL").await?;
        }
        put
    }
}

async fn put_all(connection: &mut AnyConnection, files: &[ImageFileRow]) -> Result<()> {
    let mut transaction = connection.begin().await?;
    for file in files {
        sqlx::query(
            "INSERT INTO image_files (image_id, kind, path, in_place, bytes, sha256, uploaded_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (image_id, kind) DO UPDATE SET path = excluded.path, in_place = excluded.in_place,
                 bytes = excluded.bytes, sha256 = excluded.sha256, uploaded_at = excluded.uploaded_at",
        )
        .bind(&file.image_id)
        .bind(&file.kind)
        .bind(&file.path)
        .bind(file.in_place)
        .bind(file.bytes)
        .bind(&file.sha256)
        .bind(file.uploaded_at)
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use sqlx::AnyPool;
    use sqlx::migrate::Migrator;

    use super::*;

    /// A rename would change what memory snapshots know a file by.
    #[tokio::test]
    async fn files_from_before_they_had_names_keep_theirs() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("manager.db");
        sqlx::any::install_default_drivers();
        let pool = AnyPool::connect(&format!("sqlite://{}?mode=rwc", file.display())).await.unwrap();
        let before = sqlx::migrate!().iter().filter(|migration| migration.version < 21).cloned().collect();
        Migrator::with_migrations(before).run(&pool).await.unwrap();
        for statement in [
            "INSERT INTO images VALUES ('img-a', 'a', '', 1, 0), ('img-b', 'b', '', 2, 0)",
            "INSERT INTO image_files VALUES ('img-a', 'kernel', NULL, 7, 'abc', 1), ('img-b', 'rootfs', '/x', 7, NULL, 1)",
        ] {
            pool.execute(statement).await.unwrap();
        }
        pool.close().await;
        let files = Store::sqlite(&file).await.unwrap().image_files(None).await.unwrap();
        let places: Vec<_> = files.iter().map(|file| (file.path.as_str(), file.in_place)).collect();
        assert_eq!(places, [("kernel", 0), ("/x", 1)]);
    }
}
