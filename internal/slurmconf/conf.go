// Package slurmconf reads slurm.conf as text: what is set where, by file and line.
//
// It knows the form of the file (comments, continued lines, Include, lines of several settings,
// DEFAULT records), not what the settings mean. Files come from the caller; it opens none.
// Source: slurm.conf(5).
package slurmconf

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"
)

const includeLimit = 16

// Reader gives a file's content, fs.ErrNotExist for one that is not there.
type Reader interface {
	Read(name string) ([]byte, error)
}

// Value is one setting and where it stands.
type Value struct {
	Key  string // as the file spells it
	Text string
	File string
	Line int
}

// Where is "FILE line N".
func (v Value) Where() string { return fmt.Sprintf("%s line %d", v.File, v.Line) }

// Record is one line: its settings in order.
type Record []Value

// Get is the setting of this name, in any case; false when the line has none.
func (r Record) Get(key string) (Value, bool) {
	for _, v := range r {
		if strings.EqualFold(v.Key, key) {
			return v, true
		}
	}
	return Value{}, false
}

// Conf is slurm.conf and all that it includes, in the order of reading.
type Conf struct {
	Path    string
	Records []Record
}

// Read follows slurm.conf and what it includes. A file that is not there is an empty one. Names
// with % in an Include are refused: what they stand for is the daemon's to know.
func Read(files Reader, conf string) (Conf, error) {
	c := Conf{Path: conf}
	err := c.read(files, conf, 0)
	return c, err
}

func (c *Conf) read(files Reader, name string, depth int) error {
	if depth > includeLimit {
		return fmt.Errorf("%s: more than %d includes in each other", name, includeLimit)
	}
	b, err := files.Read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, l := range logicalLines(string(b)) {
		if words := strings.Fields(l.text); len(words) == 2 && strings.EqualFold(words[0], "include") {
			next := words[1]
			if strings.Contains(next, "%") {
				return fmt.Errorf("%s line %d: include %s: names with %% are not read", name, l.number, next)
			}
			if !path.IsAbs(next) {
				next = path.Join(path.Dir(c.Path), next)
			}
			if err := c.read(files, next, depth+1); err != nil {
				return err
			}
			continue
		}
		if r := parse(l.text, name, l.number); len(r) > 0 {
			c.Records = append(c.Records, r)
		}
	}
	return nil
}

// setting is KEY=VALUE, KEY = VALUE or KEY="A VALUE"; += and -= are of later releases' commands.
var setting = regexp.MustCompile(`([A-Za-z][A-Za-z0-9_]*)\s*=\s*("[^"]*"|[^\s"]*)`)

// parse passes over a setting without a value, as slurmctld takes it for not set.
func parse(line, file string, number int) Record {
	var r Record
	for _, m := range setting.FindAllStringSubmatch(line, -1) {
		if text := strings.Trim(m[2], `"`); text != "" {
			r = append(r, Value{Key: m[1], Text: text, File: file, Line: number})
		}
	}
	return r
}

type logicalLine struct {
	text   string
	number int // of its first line
}

// logicalLines takes comments out and joins lines that end in a backslash. A hash after a
// backslash is part of a value.
func logicalLines(text string) []logicalLine {
	var lines []logicalLine
	joined, first, number := "", 0, 0
	for line := range strings.SplitSeq(text, "\n") {
		number++
		if joined == "" {
			first = number
		}
		for i := 0; i < len(line); i++ {
			if line[i] == '#' && (i == 0 || line[i-1] != '\\') {
				line = line[:i]
				break
			}
		}
		line = strings.TrimRight(line, " \t\r")
		if rest, ok := strings.CutSuffix(line, `\`); ok {
			joined += rest
			continue
		}
		lines = append(lines, logicalLine{strings.TrimSpace(joined + line), first})
		joined = ""
	}
	return append(lines, logicalLine{strings.TrimSpace(joined), first})
}
