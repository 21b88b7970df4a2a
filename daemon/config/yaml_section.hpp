// SPDX-License-Identifier: Apache-2.0
//
// Reads a YAML document key by key, and remembers everything that is wrong with it.
//
// A mistake is reported as "file:line:column: path: what", all mistakes of a file in one run. A
// key nobody asked for is a mistake too: it is nearly always a misspelling.
#pragma once

#include "daemon/config/values.hpp"

#include <yaml-cpp/yaml.h>

#include <cstddef>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace chiru::daemon {

/// What is learnt while reading one file.
struct YamlFindings {
    std::string file;
    std::vector<std::string> mistakes;
    std::set<std::string> keys;  ///< all that were asked for, dotted; list positions as "[]"
};

/// One value, and where it stands.
class YamlItem {
public:
    /// `path` and `key_path` name the same place, the first for people ("ports[2].mtu"), the
    /// second in YamlFindings::keys ("ports[].mtu").
    YamlItem(YAML::Node node, YAML::Mark mark, std::string path, std::string key_path,
             YamlFindings& findings)
        : node_(std::move(node)), mark_(mark), path_(std::move(path)),
          key_path_(std::move(key_path)), findings_(&findings) {}

    void complain(const std::string& what) const;

    /// `parse(text)` returns the value, or what is wrong with it and what is allowed.
    template <class T, class Parse>
    bool read(T& field, const Parse& parse) const {
        const Parsed<std::string> text = scalar();
        if (!text) return complain(text.error()), false;
        Parsed<T> value = parse(*text);
        if (!value) return complain(value.error()), false;
        field = std::move(*value);
        return true;
    }

    bool is_list() const { return node_.IsSequence(); }
    /// The items of a list; a mistake if it is none.
    std::vector<YamlItem> items() const;

protected:
    Parsed<std::string> scalar() const;

    YAML::Node node_;
    YAML::Mark mark_;
    std::string path_;
    std::string key_path_;
    YamlFindings* findings_;
};

/// A mapping.
class YamlSection : public YamlItem {
public:
    explicit YamlSection(const YamlItem& item);
    YamlSection(YamlSection&&) = default;

    bool has(const std::string& key) const { return position(key) != kAbsent; }
    /// What stands under `key`, to complain about or to read; the section itself if there is none.
    YamlItem at(const std::string& key);

    /// Reads `key` into `field`. Returns whether it was there and right.
    template <class T, class Parse>
    bool required(const std::string& key, T& field, const Parse& parse) {
        return present(key) && optional(key, field, parse);
    }
    /// The same, but a missing key leaves `field` at its default.
    template <class T, class Parse>
    bool optional(const std::string& key, T& field, const Parse& parse) {
        const YamlItem item = at(key);
        return has(key) && item.read(field, parse);
    }
    /// The mapping under `key`; an empty one if there is none.
    YamlSection section(const std::string& key);
    /// The list under `key`; empty if there is none.
    std::vector<YamlItem> list(const std::string& key);
    /// Is `key` there? Complains if not.
    bool present(const std::string& key);

    /// Call last: whatever was not asked for by now is unknown.
    void reject_unknown_keys() const;

private:
    static constexpr std::size_t kAbsent = ~std::size_t{0};
    struct Entry {
        std::string key;
        YAML::Mark mark;
        YAML::Node value;
    };
    std::size_t position(const std::string& key) const;
    std::string dotted(const std::string& path, const std::string& key) const;

    std::vector<Entry> entries_;
    std::set<std::string> known_;
};

}  // namespace chiru::daemon
