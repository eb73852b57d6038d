"""The layers of a message around its CMS objects, by offsets into the bytes as received."""
