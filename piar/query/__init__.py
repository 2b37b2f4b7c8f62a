"""What the store holds, for people and scripts: status, show, SQL, export. Readers only."""
